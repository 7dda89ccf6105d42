"""UCI Online Retail's file in both releases, with the faults of the real one, needs no option."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import Run

from benchmarks.speed import uci_export
from benchmarks.speed.importing import FORMS, behavior, check
from benchmarks.speed.uci_export import Export
from genrec import Dataset

SAMPLE = Path(uci_export.__file__).parents[2] / "genrec" / "data" / "samples" / "online_retail_demo"
ROWS = 2000


@pytest.fixture(scope="module")
def export() -> Export:
    return uci_export.make(SAMPLE, rows=ROWS)


def test_the_file_has_the_faults_and_is_the_same_every_time(export: Export) -> None:
    lines = export.lines
    assert lines == uci_export.make(SAMPLE, rows=ROWS).lines
    assert lines != uci_export.make(SAMPLE, rows=ROWS, seed=1).lines
    assert len(lines) == ROWS
    assert 0.2 < sum(not x.user for x in lines) / ROWS < 0.3
    assert len(set(lines)) < ROWS
    first = {x.code: x.title for x in reversed(lines)}
    faults = {
        "no title": [x for x in lines if not x.title],
        "cancelled": [x for x in lines if x.invoice.startswith("C")],
        "negative": [x for x in lines if x.quantity < 0 and not x.invoice.startswith("C")],
        "remark": [x for x in lines if x.title in uci_export.REMARKS],
        "space": [x for x in lines if x.title.endswith(" ")],
        "lower title": [x for x in lines if x.title.islower()],
        "lower code": [x for x in lines if x.code[-1].islower()],
        "postage": [x for x in lines if x.code == "POST" and x.user],
        "free": [x for x in lines if x.price == 0],
        "first title": [c for c, title in export.titles.items() if first[c].strip() != title],
    }
    assert all(faults.values()), [name for name, found in faults.items() if not found]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("floats", [True, False])
def test_every_row_is_kept_or_rejected(
    export: Export,
    form: str,
    floats: bool,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, encoding = FORMS[form]
    monkeypatch.chdir(tmp_path)
    uci_export.write(export.lines, tmp_path / "shop.csv", release, encoding=encoding, floats=floats)
    code, printed, errors = run("prepare", "shop.csv")
    assert code == 0, errors
    outcome = check(export, tmp_path / "shop")
    assert outcome.counted
    assert outcome.exact
    assert sum(outcome.rejected.values()) == sum(not x.user for x in export.lines)
    assert outcome.returns == sum(behavior(x) == "return" for x in export.lines if x.user) > 0
    assert outcome.titled == outcome.items > 500
    assert f"- {outcome.several} items have several titles" in printed
    assert f"Kept {outcome.kept:,} events from {ROWS:,} rows." in printed
    assert len(printed.splitlines()) < 30
    data = Dataset.load(tmp_path / "shop")
    user = next(x.user for x in export.lines if x.user)
    assert data.interactions.known_id(user) == data.interactions.known_id(f"{user}.0") == user
    titles = {i.item_id: i.title for i in data.catalog}
    assert {i: titles[i] for i in uci_export.ACCENTED} == uci_export.ACCENTED
