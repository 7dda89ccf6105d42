"""Personal data in free text is replaced before it can enter a prompt."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import served, tiny
from support.commands import Run, answer

import genrec
from benchmarks.accuracy.redaction import FOLDER, measure, read_marked
from genrec import Dataset, History, Interaction, Recommender
from genrec.data.redaction import Redactor, is_iban, passes_luhn, redact
from genrec.data.updates import apply_updates
from genrec.prompts.template import Template
from genrec.training.sequences import RowMaker, RowOptions, make_rows
from genrec.training.title_paths import TitlePaths

PERSONAL = "mail anna@example.com or call 0171 3920012"
CLEAN = "mail [email] or call [phone]"
TITLES = ["Call 0171 3920012", "10 Downing Street", "mug@home.example", "Fahrenheit 451"]


@pytest.mark.parametrize("name", ["texts.txt", "held_out.txt"])
def test_what_is_listed_is_found_and_nothing_else(name: str) -> None:
    outcome = measure(FOLDER / name)
    assert outcome.listed.total() > 50
    assert outcome.clean >= 50
    assert outcome.found.total() >= 0.98 * outcome.listed.total(), outcome.mistakes
    assert outcome.alarms <= 0.02 * outcome.clean, outcome.mistakes


def test_a_redacted_text_stays_as_it_is() -> None:
    for name in ("texts.txt", "held_out.txt"):
        for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
            text, _ = read_marked(line)
            assert redact(redact(text)) == redact(text)


@given(st.text(max_size=80))
def test_any_text_is_read_and_only_spans_change(text: str) -> None:
    found = Redactor().find(text)
    assert found == sorted(found)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(found))
    assert found or redact(text) is text


@given(st.integers(0, 15), st.integers(1, 9))
def test_a_card_or_account_with_a_wrong_digit_is_none(place: int, more: int) -> None:
    for number, check in (("4242424242424242", passes_luhn), ("DE89370400440532013000", is_iban)):
        at = place % (len(number) - 4) + 4
        wrong = number[:at] + str((int(number[at]) + more) % 10) + number[at + 1 :]
        assert check(number)
        assert not check(wrong)
        assert redact(number) in {"[card]", "[iban]"}
        assert redact(wrong) == wrong


def test_long_texts_take_no_long_time() -> None:
    # Each of these took minutes with patterns that were not bounded.
    for text in (
        "a" * 50_000 + "@",
        "a-" * 30_000 + "1",
        "a@" + "a." * 30_000 + "1",
        "Ab " * 20_000 + "1",
    ):
        assert redact(text) == text


def test_a_further_finder_replaces_names() -> None:
    def names(text: str) -> list[tuple[int, int, str]]:
        return [(text.index("Ann"), text.index("Ann") + 3, "name")] if "Ann" in text else []

    redactor = Redactor([names])
    assert redactor.redact("Ann, a@b.example") == "[name], [email]"
    assert dict(redactor.counts) == {"email": 1, "name": 1}


def shop() -> tuple[pa.Table, pa.Table]:
    items = pa.table({"item_id": list("abcd"), "title": TITLES})
    rows: list[dict[str, Any]] = []
    for user in range(6):
        for time, item in enumerate("abcd"):
            row = {"user_id": f"u{user}@person.example", "item_id": item, "behavior": "buy"}
            rows.append({**row, "timestamp": 2.0 * time, "text": None})
            search = {"user_id": row["user_id"], "item_id": None, "behavior": "search"}
            rows.append({**search, "timestamp": 2.0 * time + 1, "text": PERSONAL})
    return items, pa.Table.from_pylist(rows)


def texts_of(data: Dataset) -> set[str]:
    assert data.interactions.text is not None
    return {text for text in data.interactions.text.to_pylist() if text}


@pytest.fixture(scope="module")
def shop_data() -> Dataset:
    return Dataset.from_tables(*shop(), name="shop")


def test_prepare_replaces_it_in_texts_but_not_in_titles(
    tmp_path: Path, run: Run, shop_data: Dataset
) -> None:
    import pyarrow.csv

    for name, table in zip(("items", "events"), shop(), strict=True):
        pyarrow.csv.write_csv(table, tmp_path / f"{name}.csv")
    files = [tmp_path / "events.csv", "--items", tmp_path / "items.csv"]
    plain = answer(run, "prepare", *files, "--out", tmp_path / "data")
    assert plain["redacted"] == {"email": 24, "phone": 24} == shop_data.info.redacted
    loaded = Dataset.load(tmp_path / "data")
    assert loaded.catalog.titles == TITLES
    assert texts_of(loaded) == {CLEAN}
    assert "anna@example.com" not in (tmp_path / "data" / "dataset.json").read_text()
    text = run("prepare", *files, "--out", tmp_path / "data")[1]
    assert "replaced in the texts of events: 24 email, 24 phone." in text
    kept = answer(run, "prepare", *files, "--out", tmp_path / "kept", "--no-redact")
    assert "redacted" not in kept
    unchanged = Dataset.load(tmp_path / "kept")
    assert texts_of(unchanged) == {PERSONAL}
    # What is stored stays as it is, and new texts follow the decision of `prepare`.
    new = pa.table({"user_id": ["n"], "item_id": ["a"], "behavior": ["rate"], "timestamp": [99.0],
                    "text": [PERSONAL]})  # fmt: skip
    for data, expected in ((loaded, CLEAN), (unchanged, PERSONAL)):
        more, _ = apply_updates(data, new)
        assert more.interactions.history("n").interactions[0].text == expected
        assert more.info.redact == (expected == CLEAN)


def test_training_and_requests_read_the_same_text(shop_data: Dataset) -> None:
    ours = Recommender(shop_data, tiny.language_model(), encoder="none")
    stored = ours.history("u1@person.example").latest(5)
    raw = [
        Interaction(e.item_id, e.behavior, e.timestamp, text=None if e.text is None else PERSONAL)
        for e in stored.interactions
    ]
    prompts = {ours.prompt(ours.understand(h)[0]).text for h in (stored, raw, History(tuple(raw)))}
    assert len(prompts) == 1
    assert CLEAN in prompts.pop()
    typed, understood = ours.understand(f'searched for "{PERSONAL}"; bought: Fahrenheit 451')
    assert [e.text for e in typed.interactions] == [CLEAN, None]
    assert [u.note for u in understood] == [CLEAN, None]
    assert CLEAN in ours.prompt(ours.in_context(stored, note=PERSONAL)).text
    open_ours = ours.with_settings(redact=False)
    assert PERSONAL in open_ours.prompt(open_ours.in_context(stored, note=PERSONAL)).text


def test_no_user_id_enters_a_prompt(shop_data: Dataset) -> None:
    ours = Recommender(shop_data, tiny.language_model(), encoder="none", few_shot=2)
    events = shop_data.interactions
    texts = [ours.prompt(ours.history(user)).text for user in events.user_ids]
    folder = Path(genrec.__file__).parent.parent / "prompts"
    for path in sorted(folder.glob("*/*.jinja")):
        template = Template.load(path.stem, path.parent.name)
        about_item = path.stem not in {
            "chat",
            "few_shot",
            "next_item",
            "next_item_context",
            "sentence",
        }
        for user in events.user_ids[:2]:
            others = [events.history(other) for other in events.user_ids[2:4]]
            texts.append(
                template.render(
                    shop_data.catalog, events.history(user), "buy", demonstrations=others,
                    item=0 if about_item else None,
                ).text
            )  # fmt: skip
    everything = np.ones(len(events), dtype=bool)
    plain = ours.with_settings(few_shot=0)
    paths = TitlePaths(plain.trie)  # type: ignore[arg-type]
    maker = RowMaker(plain.encoder, plain.template, events, paths, RowOptions())
    rows = make_rows(maker, events, everything, everything)
    texts += [ours.model.tokenizer.decode(row.ids.tolist()) for row in rows]
    assert len(texts) > 30
    for text in texts:
        assert "person.example" not in text


def test_a_service_stores_no_personal_data_and_logs_no_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shop_data: Dataset
) -> None:
    user = "u1@person.example"
    with caplog.at_level(logging.DEBUG), served.opened(tmp_path, shop_data) as client:
        event = {"user_id": user, "behavior": "search", "text": PERSONAL}
        assert client.post("/v1/feedback", json={"events": [event]}).status_code == 200
        session = {"history": [{"behavior": "search", "text": PERSONAL}], "keep": True}
        assert client.post("/v1/sessions", json=session).status_code == 200
        assert client.get(f"/v1/users/{user}").status_code == 200
        assert client.post("/v1/recommend", json={"user_id": user, "k": 2}).status_code == 200
        assert client.post("/v1/recommend", json={"user_id": user, "k": "x"}).status_code == 422
        assert client.delete(f"/v1/users/{user}").status_code == 200
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"anna@example.com" not in stored
    records = [r for r in caplog.records if r.name.startswith("genrec")]
    assert len(records) >= 6
    for record in records:
        assert "person.example" not in json.dumps(vars(record), default=str)
