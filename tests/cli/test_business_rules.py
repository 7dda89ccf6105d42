"""The commands prepare a shop with times and recommend under its business rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import Run, answer

ITEMS = """sku,name,kind,ends,published
a,Red mug,mug,31/12/2026,2025-11-01
b,Blue cup,mug,24/12/2025,2025-11-20
c,Paper doll,toy,soon,2025-11-25
d,Tin soldier,toy,,2025-10-01
"""
EVENTS = """user_id,item_id,behavior,timestamp
u,a,buy,2025-01-01
u,b,buy,2025-01-02
v,c,buy,2025-01-03
v,a,buy,2025-01-04
"""


@pytest.fixture
def shop(run: Run, tmp_path: Path) -> Path:
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "events.csv").write_text(EVENTS)
    names = [f"--item-column={n}" for n in ("item_id=sku", "title=name", "available_until=ends")]
    files = ["--items", tmp_path / "items.csv", "--interactions", tmp_path / "events.csv"]
    code, out, err = run("prepare", *files, *names, "--out", tmp_path / "shop")
    assert code == 0, err
    remark = "1 of 3 cells could not be read as times, such as 'soon' of the item 'c'."
    assert remark in " ".join((out + err).split())
    return tmp_path / "shop"


def items(value: Any) -> list[str]:
    return [r["item_id"] for r in value["recommendations"]]


def test_time_stock_and_age(run: Run, shop: Path, model: Path, tmp_path: Path) -> None:
    ask = ["recommend", shop, "--model", model, "--history", "", "--prior", "none"]
    assert set(items(answer(run, *ask, "--at", "2025-12-24T23:59"))) == {"a", "b", "c", "d"}
    assert set(items(answer(run, *ask, "--at", "2025-12-25"))) == {"a", "c", "d"}
    assert set(items(answer(run, *ask, "--at", "2027-01-01"))) == {"c", "d"}
    assert len(items(answer(run, *ask, "--at", "any"))) == 4
    assert len(answer(run, "score", *ask[1:])["recommendations"]) == 4
    stock = tmp_path / "stock.csv"
    stock.write_text("item_id,quantity\na,0\nc,3\nzz,1\n")
    value = answer(run, *ask, "--stock", stock, "--pin", "Red mug", "--at", "any")
    assert items(value) == ["c"]
    assert "The pinned item 'a' was left out, because it is out of stock." in value["notes"]
    young = answer(run, *ask, "--at", "2025-12-25", "--half-life", "0.5")
    assert items(young) == ["c", "a", "d"]
    weighted = answer(
        run, *ask, "--at", "any", "--half-life", "9", "--age-column", "available_until", "-k", "4"
    )
    assert any("2 items have no readable times" in n for n in weighted["notes"])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--at", "soon"], 6, "at='soon' is not a time"),
        (["--stock", "none.csv"], 3, "none.csv cannot be used: no such file"),
        (["--half-life", "0"], 6, "half_life=0.0 is not valid"),
        (["--half-life", "3", "--age-column", "x"], 6, "no column 'x'"),
        (["--age-column", "published"], 6, "age_column has no effect without half_life"),
        (["--pin", "zebra"], 6, "Item 'zebra' is not in the catalog"),
        (["--boost", "kind == 'toy'"], 2, "is not a condition with a factor"),
        (["--boost", "kind == 'toy': 0"], 6, "has the factor 0.0"),
        (["--boost", "kin == 'toy': 2"], 6, "Did you mean kind?"),
    ],
)
def test_errors_come_before_a_model_is_loaded(
    run: Run, shop: Path, options: list[str], code: int, message: str
) -> None:
    found, _, err = run("recommend", shop, "--model", "/no/such/model", "--history", "", *options)
    assert message in " ".join(err.split())
    assert found == code
