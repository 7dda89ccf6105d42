"""Embedded datasets, and loaders of public data on small files in their publishers' layouts."""

from __future__ import annotations

import gzip
import json
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from genrec import Dataset
from genrec.data import behaviors, datasets
from genrec.data.ingest import EventOptions
from genrec.errors import DataError

HAN = re.compile(r"[\u4e00-\u9fff]")
ROOT = Path(__file__).parents[2]


def test_zh_mini_is_what_its_data_card_says() -> None:
    data = datasets.load("zh_mini")
    assert data.info.rejected == {}
    assert (data.info.users, data.info.items, data.info.events) == (60, 240, 955)
    assert (data.info.target_behavior, data.info.exclude_seen) == ("buy", True)
    assert data.info.case == "as_is"
    assert Counter(i.attributes["category"] for i in data.catalog) == {
        "商品": 96, "新闻": 48, "视频": 32, "音乐": 32, "社交": 32,
    }  # fmt: skip
    assert len(set(data.catalog.titles)) == 240
    assert all(HAN.search(t) for t in data.catalog.titles)
    events = data.interactions
    assert set(events.behaviors) == {
        "browse", "buy", "read", "watch", "listen", "follow", "search",
    }  # fmt: skip
    verbs = json.loads(
        (behaviors.templates_folder() / "zh" / "verbs.json").read_text(encoding="utf-8")
    )
    assert set(events.behaviors) <= set(verbs)
    for user in events.user_ids:
        history = events.history(user)
        assert 12 <= len(history) <= 20
        assert len(set(history.item_ids)) == len(history.item_ids)
        assert history.interactions[-1].behavior == "buy"
        topics = {data.catalog[data.catalog.row(i)].attributes["topic"] for i in history.item_ids}
        assert len(topics) <= 3


def test_zh_mini_comes_from_its_script(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_zh_mini.py"))
    script["main"](tmp_path / "again.csv")
    committed = ROOT / "genrec" / "data" / "samples" / "zh_mini" / "interactions.csv"
    assert (tmp_path / "again.csv").read_bytes() == committed.read_bytes()


def test_an_unknown_name() -> None:
    with pytest.raises(DataError, match="Expected one of: online_retail_demo, zh_mini"):
        datasets.load("nope")


def check(data: Dataset, titles: list[str], values: list[float]) -> None:
    assert [i.title for i in data.catalog] == titles
    history = data.interactions.history(data.interactions.user_ids[0])
    assert [i.value for i in history.interactions] == values
    assert {i.behavior for i in history.interactions} == {"rate"}


def test_movielens_100k(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t2\t3\t881250949\n196\t1\t5\t881250940\n")
    (tmp_path / "u.item").write_bytes(
        b"1|Toy Story (1995)|01-Jan-1995||http://x|0|1\n2|Caf\xe9 (1996)|01-Jan-1996||http://y|1|0\n"
    )
    data = datasets.movielens(tmp_path)
    check(data, ["Toy Story (1995)", "Café (1996)"], [5.0, 3.0])
    assert data.catalog[0].attributes == {"released": "01-Jan-1995"}


def test_movielens_1m(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::10::5::978300760\n1::20::4::978302109\n")
    (tmp_path / "movies.dat").write_text("10::Heat (1995)::Action|Crime\n20::Jaws (1975)::Horror\n")
    data = datasets.movielens(tmp_path)
    check(data, ["Heat (1995)", "Jaws (1975)"], [5.0, 4.0])
    assert data.catalog[0].attributes["genres"] == "Action|Crime"


def test_movielens_latest(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,10,4.5,964982703\n1,20,0.5,964982704\n"
    )
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n10,"American President, The (1995)",Drama\n20,Heat (1995),Crime\n'
    )
    data = datasets.movielens(tmp_path)
    check(data, ["American President, The (1995)", "Heat (1995)"], [4.5, 0.5])
    with pytest.raises(DataError, match="is not a MovieLens folder"):
        datasets.movielens(tmp_path / "none")


def test_recbole(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t9\t4\t881250949\n"
    )
    (tmp_path / "x.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\n9\tHeat\t1995\n"
    )
    check(datasets.recbole(tmp_path, "x"), ["Heat"], [4.0])
    (tmp_path / "x.item").write_text("item_id:token\tyear:token\n9\t1995\n")
    with pytest.raises(DataError, match="has no title column"):
        datasets.recbole(tmp_path, "x")
    with pytest.raises(DataError, match="does not exist"):
        datasets.recbole(tmp_path, "y")


def test_amazon_2014_and_2018(tmp_path: Path) -> None:
    reviews = [
        {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1370000000,
         "summary": "Great"},
        {"reviewerID": "A1", "asin": "B2", "overall": 2.0, "unixReviewTime": 1380000000},
    ]  # fmt: skip
    with gzip.open(tmp_path / "r.json.gz", "wt") as stream:
        stream.write("\n".join(json.dumps(r) for r in reviews))
    metadata = [
        {"asin": "B1", "title": "It&#39;s a mug", "brand": "X"},
        {"asin": "B2", "title": "Bag"},
    ]
    (tmp_path / "meta14.json").write_text("\n".join(repr(m) for m in metadata))
    (tmp_path / "meta18.json").write_text("\n".join(json.dumps(m) for m in metadata))
    for name in ("meta14.json", "meta18.json"):
        data = datasets.amazon(tmp_path / "r.json.gz", tmp_path / name)
        check(data, ["It's a mug", "Bag"], [5.0, 2.0])
        assert data.interactions.history("A1").interactions[0].text == "Great"
        assert data.catalog[0].attributes["brand"] == "X"


def test_html_entities_in_titles_of_public_data_are_decoded_once(tmp_path: Path) -> None:
    (tmp_path / "u.item").write_text("1|Tom &amp; Jerry||||0\n2|A &amp;amp; B||||0\n")
    (tmp_path / "u.data").write_text("1\t1\t5\t881250949\n1\t2\t3\t881250950\n")
    assert list(datasets.movielens(tmp_path).catalog.titles) == ["Tom & Jerry", "A &amp; B"]


def test_amazon_2023(tmp_path: Path) -> None:
    reviews = {"user_id": "U", "parent_asin": "B1", "asin": "B9", "rating": 4.0,
               "timestamp": 1588687728923, "title": "Nice"}  # fmt: skip
    (tmp_path / "r.jsonl").write_text(json.dumps(reviews))
    (tmp_path / "m.jsonl").write_text(json.dumps({"parent_asin": "B1", "title": "Mug"}))
    data = datasets.amazon(tmp_path / "r.jsonl", tmp_path / "m.jsonl")
    check(data, ["Mug"], [4.0])
    assert data.info.time_unit == "ms"
    assert data.interactions.columns.timestamp.tolist() == pytest.approx([1588687728.923])


def test_amazon_of_another_layout(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"who": 1}\n')
    (tmp_path / "m.jsonl").write_text('{"asin": "a", "title": "b"}\n')
    with pytest.raises(DataError, match="Expected one of these layouts"):
        datasets.amazon(tmp_path / "r.jsonl", tmp_path / "m.jsonl")
    (tmp_path / "r.jsonl").write_text("__import__('os').abort()\n")
    with pytest.raises(DataError, match=r"r\.jsonl, data row 1: not a JSON object"):
        datasets.amazon(tmp_path / "r.jsonl", tmp_path / "m.jsonl")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("layout", ["ml-100k", "ml-1m"])
def test_movielens_titles_of_either_encoding(tmp_path: Path, layout: str, encoding: str) -> None:
    titles = ["Amélie (2001)", "Das Boot – Director's Cut (1981)", 'Heat, The; 2|3 "x" (1995)']
    if encoding == "latin-1" or layout == "ml-100k":
        titles = [t.replace("–", "-").replace("|", "/") for t in titles]
    if layout == "ml-100k":
        items = "".join(
            f"{n}|{t}|01-Jan-2001||http://x|{'0|' * 18}0\n" for n, t in enumerate(titles)
        )
        (tmp_path / "u.item").write_text(items, encoding=encoding)
        (tmp_path / "u.data").write_text("5\t2\t4\t881250949\n5\t0\t3\t881250950\n")
    else:
        items = "".join(f"{n}::{t}::Drama|War\n" for n, t in enumerate(titles))
        (tmp_path / "movies.dat").write_text(items, encoding=encoding)
        (tmp_path / "ratings.dat").write_text("5::2::4::978300760\n5::0::3::978300761\n")
    data = datasets.movielens(tmp_path)
    check(data, titles, [4.0, 3.0])
    assert data.info.rejected == {}


def test_damaged_lines_of_public_data_are_set_aside(tmp_path: Path) -> None:
    movies, ratings = "1::Heat::Drama\n2::Jaws\n3::Alien::Horror\n", "1::1::5::978300760\n1::3::\n"
    (tmp_path / "movies.dat").write_text(movies)
    (tmp_path / "ratings.dat").write_text(ratings + "1::3::4::978300769\n")
    data = datasets.movielens(tmp_path)
    check(data, ["Heat", "Alien"], [5.0, 4.0])
    assert data.info.rejected == {
        "movies.dat: 2 cells, not 3": 1, "ratings.dat: 3 cells, not 4": 1,
    }  # fmt: skip

    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5,978300760\n1,3\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Heat,Drama\n3,Jaws\n")
    (tmp_path / "ratings.dat").unlink()
    data = datasets.movielens(tmp_path)
    assert data.info.rejected == {
        "movies.csv: 2 cells, but the header has 3": 1,
        "ratings.csv: 2 cells, but the header has 4": 1,
    }

    inter = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t9\t4\t881250949\n1\t9\n"
    )
    (tmp_path / "x.inter").write_text(inter)
    (tmp_path / "x.item").write_text("item_id:token\ttitle:token_seq\n9\tHeat\n8\n")
    assert datasets.recbole(tmp_path, "x").info.rejected == {
        "x.item: 1 cell, but the header has 2": 1, "x.inter: 2 cells, but the header has 4": 1,
    }  # fmt: skip


def test_a_cut_line_of_amazon_is_set_aside(tmp_path: Path) -> None:
    review = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1370000000,
              "summary": "half a \ud83d"}  # fmt: skip
    good = json.dumps(review)
    (tmp_path / "r.json").write_text(f"{good}\n\n{good[:40]}\n[1]\n")
    (tmp_path / "m.json").write_text("{'asin': 'B1', 'title': 'Mug'}\n{'asin': 'B2', 'tit")
    data = datasets.amazon(tmp_path / "r.json", tmp_path / "m.json")
    check(data, ["Mug"], [5.0])
    assert data.info.rejected == {"m.json: not a JSON object": 1, "r.json: not a JSON object": 2}
    assert data.interactions.history("A1").interactions[0].text == "half a ?"


def test_files_that_cannot_be_unpacked_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps({"asin": "B1", "title": "Mug"}).encode() * 200)
    (tmp_path / "m.json.gz").write_bytes(packed[:-20])
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(DataError, match=r"m\.json\.gz' cannot be read"):
        datasets.amazon(tmp_path / "r.json", tmp_path / "m.json.gz")


def test_columns_of_recbole_are_mapped_as_the_message_says(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\tdate:float\n"
    (tmp_path / "x.inter").write_text(header + "1\t9\t881250949\n1\t9\t881250999\n")
    (tmp_path / "x.item").write_text("item_id:token\tname:token_seq\n9\tHeat\n")
    with pytest.raises(DataError) as caught:
        datasets.recbole(tmp_path, "x")
    assert "--" not in str(caught.value)
    assert 'options=EventOptions(columns={"timestamp": "NAME"})' in str(caught.value)
    options = EventOptions(columns={"timestamp": "date"}, behavior="watch")
    data = datasets.recbole(tmp_path, "x", options=options)
    assert list(data.interactions.behaviors) == ["watch"]
    assert data.interactions.columns.timestamp.tolist() == [881250949, 881250999]
