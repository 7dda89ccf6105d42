"""Columns that are missing or wrongly named are all said at once, with options to paste."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import Run
from support.work import count_calls

from genrec import Dataset
from genrec.data.ingest import EventOptions
from genrec.errors import DataError, GenrecError, SettingsError


def prepare(path: Path, **options: object) -> Dataset:
    return Dataset.prepare(None, path, options=EventOptions(**options))[0]  # type: ignore[arg-type]


def support_desk(tmp_path: Path) -> Path:
    """Events under names that genrec does not know, with quotes and spaces in them."""
    lines = ["Case No,Requester Ref,Agent,Help page,Page's subject,Opened on the"]
    for n in range(60):
        agent, page = "AB"[n % 2], n % 7
        lines.append(f"{9000 + n},R-{n % 20},{agent},KB{page},How to do {page} well,"
                     f"2024-03-{1 + n % 28:02d} 10:{n:02d}")  # fmt: skip
    path = tmp_path / "cases 2024.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_all_missing_columns_come_in_one_message_whose_options_work(tmp_path: Path) -> None:
    path = support_desk(tmp_path)
    with pytest.raises(DataError) as error:
        prepare(path)
    message = str(error.value)
    for role in ("user_id", "item_id", "timestamp", "title"):
        assert f"{role} (" in message
    pasted = shlex.split(message.partition("Add ")[2].partition(" to the command")[0])
    assert pasted[::2] == ["--column"] * 4
    columns = dict(one.split("=", 1) for one in pasted[1::2])
    assert columns == {
        "user_id": "Requester Ref",
        "item_id": "Help page",
        "timestamp": "Opened on the",
        "title": "Page's subject",
    }
    data = prepare(path, columns=columns)
    assert (data.info.events, data.info.items, data.info.users) == (60, 7, 20)


def test_a_title_alone_is_asked_for_with_one_option(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    rows = "".join(f"u{n % 3},{n % 4},Thing {n % 4},2024-01-{n + 1:02d}\n" for n in range(12))
    path.write_text("user_id,item_id,What it is,timestamp\n" + rows, encoding="utf-8")
    with pytest.raises(DataError, match="Add --column title='What it is' to the command") as error:
        prepare(path)
    assert "user_id (" not in str(error.value)
    assert "--items" in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unit": "nope"}, "no column 'nope' to take baskets from"),
        ({"unit": "oder"}, "Did you mean --unit order?"),
        ({"columns": {"titel": "name"}}, "Did you mean --column title=name?"),
        ({"columns": {"usr_id": "name"}}, "Did you mean --column user_id=name?"),
        ({"columns": {"user_id": "item_id"}}, "would hold both the users and the items"),
        ({"columns": {"item_id": "user_id"}}, "would hold both the users and the items"),
        ({"columns": {"item_id": "name", "user_id": "name"}}, "hold both the users and the items"),
    ],
)
def test_a_wrong_name_is_refused_with_what_was_meant(
    options: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "e.csv"
    rows = "".join(f"u{n % 3},{n % 4},T{n % 4},2024-01-{n + 1:02d},{n}\n" for n in range(12))
    path.write_text("user_id,item_id,name,timestamp,order\n" + rows, encoding="utf-8")
    with pytest.raises((SettingsError, DataError)) as error:
        prepare(path, **options)
    assert said in str(error.value)


def test_baskets_may_come_from_a_column_with_another_role(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    rows = "".join(f"u{n % 3},{n % 4},T{n % 4},2024-01-{n // 4 + 1:02d}\n" for n in range(12))
    path.write_text("customer,sku,product name,day\n" + rows, encoding="utf-8")
    assert prepare(path, unit="day").info.unit == "timestamp"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "a\\b", "..", ".", "a\nb", ""])
def test_the_name_of_a_dataset_is_no_path(name: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,title,timestamp\nu,a,T,2024-01-01\n", encoding="utf-8")
    code, _, err = run("prepare", path, "--name", name)
    assert code == 2
    assert "--name" in err
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("target", ["round", "nowhere"])
def test_a_link_that_leads_nowhere_is_said(target: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "events.csv").symlink_to(tmp_path / target)
    (tmp_path / "round").symlink_to(tmp_path / "events.csv")
    for arguments in (["events.csv", "--out", "x"], ["events.csv"], ["x.csv", "--out", "round"]):
        code, _, err = run("prepare", *(tmp_path / a if "-" not in a else a for a in arguments))
        assert code in {2, 3}, err
        assert "link" in err or "does not exist" in err or "cannot" in err.lower()


def test_the_work_for_a_file_grows_in_proportion_to_its_columns(tmp_path: Path) -> None:
    calls: list[int] = []
    for count in (200, 1600):
        path = tmp_path / f"{count}.csv"
        head = ",".join(f"c{n}" for n in range(count))
        rows = [
            f"u{n % 5},i{n % 6},Thing {n % 6},{1700000000 + n * 86400},"
            + ",".join(("a", str(n), f"v{n % 6}", f"{n}.5")[(c + n) % 4] for c in range(count))
            for n in range(30)
        ]
        path.write_text(
            f"user_id,item_id,title,timestamp,{head}\n" + "\n".join(rows) + "\n", encoding="utf-8"
        )
        number, data = count_calls(functools.partial(prepare, path))
        calls.append(number)
        assert data.info.events == 30
        assert max(map(len, data.info.notes)) < 2000
    assert calls[1] < 14 * calls[0], calls  # 8 times the columns; 64 would be quadratic


def test_a_message_does_not_list_hundreds_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    names = [f"c{n}" for n in range(500)]
    path.write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n", encoding="utf-8")
    with pytest.raises(GenrecError, match="and 400 more") as error:
        prepare(path)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    "names",
    [
        ("รหัสลูกค้า", "รหัสสินค้า", "ชื่อสินค้า", "วันที่สั่งซื้อ"),
        ("ग्राहक आईडी", "उत्पाद कोड", "उत्पाद का नाम", "दिनांक"),
    ],
)
def test_thai_and_hindi_names_are_recognized(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    rows = "".join(f"u{n % 3},{n % 4},T{n % 4},2024-01-{n + 1:02d}\n" for n in range(12))
    path.write_text(",".join(names) + "\n" + rows, encoding="utf-8")
    columns = prepare(path).info.columns
    assert [columns[n] for n in ("user_id", "item_id", "title", "timestamp")] == list(names)


def joined_tables(tmp_path: Path) -> Path:
    """Three tables joined by a query that does not rename their columns: orders, customers, items."""
    lines = ["id,created_at,id,name,id,name,quantity"]
    for n in range(60):
        order, customer, item = n // 3, n // 3 % 7, (n + n // 5) % 9
        lines.append(f"{500 + order},2024-03-{1 + order % 28:02d} 10:{order:02d},{40 + customer},"
                     f"Person {'ABCDEFG'[customer]},{item},Lamp {'RSTUVWXYZ'[item]},1")  # fmt: skip
    path = tmp_path / "joined.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_columns_with_one_name_are_told_apart_by_their_cells(tmp_path: Path) -> None:
    path = joined_tables(tmp_path)
    with pytest.raises(DataError, match="3 columns are called 'id', and are read as") as error:
        prepare(path)
    pasted = shlex.split(str(error.value).partition("Add ")[2].partition(" to the command")[0])
    assert pasted[-2:] == ["--unit", "id.1"]
    columns = dict(one.split("=", 1) for one in pasted[1:-2:2])
    assert columns == {"user_id": "id.2", "item_id": "id.3", "title": "name.2"}
    data = prepare(path, columns=columns)
    assert (data.info.events, data.info.items, data.info.users) == (60, 9, 7)
    assert data.catalog[0].title.startswith("Lamp")
    baskets = prepare(path, columns=columns, unit="id.1").interactions
    assert len(set(baskets.columns.unit.tolist())) == 20


def test_the_history_of_one_person_needs_a_column_that_is_always_the_same(tmp_path: Path) -> None:
    rows = "".join(f"web,Film {n % 9},2024-03-{1 + n % 28:02d} 10:{n:02d}\n" for n in range(40))
    path = tmp_path / "e.csv"
    path.write_text("source,title,time\n" + rows, encoding="utf-8")
    with pytest.raises(
        DataError, match=r"If all rows are of one person, .*--column user_id=source"
    ):
        prepare(path)
    data = prepare(path, columns={"user_id": "source"})
    assert (data.info.users, data.info.items, data.info.events) == (1, 9, 40)
    path.write_text("title,time\n" + rows.replace("web,", ""), encoding="utf-8")
    with pytest.raises(DataError, match="recognized as user_id") as error:
        prepare(path)
    assert "of one person" not in str(error.value)


def test_the_history_of_one_person_may_have_images_and_empty_columns(tmp_path: Path) -> None:
    columns = {
        "image": [b"\xff\xd8" + bytes([n]) for n in range(40)],
        "note": [""] * 40,
        "tags": [["x"]] * 40,
        "source": ["web"] * 40,
        "title": [f"Film {n % 9}" for n in range(40)],
        "time": [f"2024-03-{1 + n % 28:02d} 10:{n:02d}" for n in range(40)],
    }
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"of one person, .*--column user_id=source"):
        prepare(tmp_path / "e.parquet")


def test_numbers_since_1970_are_suggested_as_times(tmp_path: Path) -> None:
    rows = "".join(
        f"u{n % 5},{n % 9},Film {n % 9},{n + 7_000_000},{1_700_000_000 + n * 999}\n"
        for n in range(40)
    )
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,title,serial,happened\n" + rows, encoding="utf-8")
    with pytest.raises(DataError, match="Add --column timestamp=happened to the command"):
        prepare(path)


def test_titles_are_suggested_that_fit_the_item_ids(tmp_path: Path) -> None:
    lines = ["date;client code;nom;code article;nom"]
    for n in range(60):
        lines.append(
            f"2024-03-{1 + n % 25:02d};K{n % 11};Chez {'ABCDEFGHIJK'[n % 11]};A{n % 7};Pain {'RSTUVWX'[n % 7]}"
        )
    path = tmp_path / "e.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"Add --column title=nom\.2 to the command"):
        prepare(path)


def test_a_column_with_one_value_is_not_suggested_as_the_user(tmp_path: Path) -> None:
    rows = "".join(
        f"staff,x{n % 9},B{n % 7},Book {n % 7},{1 + n % 28:02d}.03.2024,{9 + n % 9}:30,{1 + n % 28:02d}.04.2024\n"
        for n in range(60)
    )
    path = tmp_path / "e.csv"
    path.write_text(
        "user group,main identifier,book id,title,loan date,loan time,due date\n" + rows,
        encoding="utf-8",
    )
    with pytest.raises(
        DataError, match="Add --column user_id='main identifier' to the command"
    ) as error:
        prepare(path)
    assert "of one person" not in str(error.value)
    data = prepare(path, columns={"user_id": "main identifier"})
    assert (data.info.users, data.info.items) == (9, 7)
    assert set((data.interactions.columns.timestamp % 3600).tolist()) == {
        1800
    }  # with the loan time


def test_neither_an_order_nor_a_duration_is_suggested_as_the_user(tmp_path: Path) -> None:
    lines = ["Ticket,Began,Length,Who was it,Product,Product name"]
    for n in range(60):
        ticket = n // 2
        lines.append(f"T{ticket},2024-03-{1 + ticket % 28:02d} 10:{ticket:02d},00:{n % 50:02d}:{n:02d},"
                     f"W{ticket % 9},P{n % 7},Lamp {n % 7}")  # fmt: skip
    path = tmp_path / "e.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"--column user_id='Who was it' --column timestamp=Began"):
        prepare(path)
