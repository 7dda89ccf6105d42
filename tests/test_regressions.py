"""What somebody trying to break genrec found, once each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import tiny
from safetensors.torch import load_file, save_file
from support.commands import Run, data, model, run
from support.shop_files import EVENTS, ITEMS, write

from genrec import Catalog, Dataset, History, Interaction, Item, LanguageModel, Recommender
from genrec.data.ingest import EventOptions
from genrec.errors import DataError, GenrecError, ModelError, RequestError, SettingsError

assert all(callable(f) for f in (data, model, run))
CATALOG = Catalog(Item(str(n), t) for n, t in enumerate(["red mug", "doll", "bag"]))


def make(**settings: Any) -> Recommender:
    return Recommender(CATALOG, tiny.language_model(), **settings)


def test_prepare_never_deletes_other_files(run: Run, tmp_path: Path) -> None:
    items, events = write(tmp_path)
    arguments = ["prepare", "--items", items, "--interactions", events, "--out", tmp_path / "o"]
    assert run(*arguments)[0] == 0
    (tmp_path / "o" / "notes.txt").write_text("mine")
    code, _, err = run(*arguments)
    assert code == 3
    assert "files that do not belong to a dataset" in err
    assert (tmp_path / "o" / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "dataset.json").write_text('{"mine": 1}')
    assert run(*arguments[:-1], foreign)[0] == 3
    assert (foreign / "dataset.json").read_text() == '{"mine": 1}'
    code, _, err = run(*arguments[:-1], events)
    assert code == 3
    assert events.read_text() == EVENTS


def test_one_bad_date_spoils_one_row(tmp_path: Path) -> None:
    dates = ["2024-01-01T10:00:00Z", "2024-01-02T10:00:00.123456+01:00", "oops", "0", "2024-01-03"]
    rows = "".join(f"u,a,{d},buy\n" for d in dates)
    items, events = write(tmp_path, events=f"user_id,item_id,timestamp,behavior\n{rows}")
    found, rejects = Dataset.prepare(items, events)
    assert len(found.interactions) == 3
    assert [(r[1], r[3]) for r in rejects[1].rows] == [
        (3, "u | a | oops | buy"), (4, "u | a | 0 | buy"),
    ]  # fmt: skip


def test_codes_and_long_numbers_stay_text(tmp_path: Path) -> None:
    items = "item_id,title,zip,ean,n,x\na,mug,007,12345678901234567891,7,1.5\nb,bag,8,2,,2\n"
    first = Catalog.read(write(tmp_path, items=items)[0])[0]
    assert first.attributes == {"zip": "007", "ean": "12345678901234567891", "n": 7, "x": 1.5}


def test_values_that_are_no_numbers_are_rejected(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,behavior,value\nu,a,1,buy,£5\nu,b,2,buy,\nu,c,3,buy,2\n"
    items, path = write(tmp_path, events=events)
    found, rejects = Dataset.prepare(items, path)
    assert len(found.interactions) == 2
    assert rejects[1].counts() == {"value is not a number": 1}


def test_an_open_quote_is_an_error(tmp_path: Path) -> None:
    items = 'item_id,title\n1,mug\n2,"12 inch ruler\n3,tea\n4,bag\n'
    with pytest.raises(DataError, match="a quote that is opened and never closed"):
        Catalog.read(write(tmp_path, items=items)[0])
    fine = 'item_id,title\n1,"two\nlines"\n2,12" ruler\n'
    with pytest.raises(DataError, match="at or after data row 1"):
        Catalog.read(write(tmp_path, items=fine)[0])  # cannot be told apart: better to ask
    assert len(Catalog.read(write(tmp_path, items='item_id,title\n1,12" ruler\n')[0])) == 1


def test_times_out_of_range_are_rejected(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,behavior\nu,a,1e30,buy\nu,b,5,buy\n"
    items, path = write(tmp_path, events=events)
    found, rejects = Dataset.prepare(items, path)
    assert rejects[1].counts() == {"time is out of range": 1}
    assert len(found.interactions) == 1


def test_attributes_never_overwrite_one_another(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,timestamp_given,position,behavior\nu,a,7,8,9,buy\n"
    items, path = write(tmp_path, events=events)
    found, _ = Dataset.prepare(items, path)
    found.save(tmp_path / "o")
    (event,) = Dataset.load(tmp_path / "o").interactions.history("u").interactions
    assert event.timestamp == 9
    assert sorted(event.attributes.values()) == [7, 8]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.language_model().model.save_pretrained(tmp_path / "m")
    tiny.tokenizer("llama").save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def test_missing_weights_are_an_error_and_not_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {n: w for n, w in weights.items() if "layers.0." not in n}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights"):
        LanguageModel.load(str(folder))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "model.safetensors").write_bytes(b"garbage"),
        lambda f: (f / "model.safetensors").unlink(),
        lambda f: (f / "config.json").write_text("{"),
        lambda f: (f / "config.json").unlink(),
        lambda f: (f / "tokenizer.json").write_text("{}"),
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"hidden_size": 32', '"hidden_size": 64')
        ),
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace('"hidden_size": 32', '"hidden_size": "x"')
        ),
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
    ],
)
def test_broken_model_folders_are_explained(folder: Path, damage: Any) -> None:
    damage(folder)
    with pytest.raises(ModelError) as caught:
        LanguageModel.load(str(folder))
    assert "Traceback" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_tokenizer_that_does_not_fit_is_an_error(folder: Path) -> None:
    words = tiny.tokenizer("sentencepiece")
    assert len(words) > tiny.language_model().model.config.vocab_size
    shutil.rmtree(folder)
    tiny.language_model().model.save_pretrained(folder)
    words.save_pretrained(folder)
    with pytest.raises(ModelError, match="Expected the model's own tokenizer"):
        LanguageModel.load(str(folder))


def test_models_with_nan_weights_do_not_recommend(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="logits are not finite"):
        Recommender(CATALOG, folder).recommend("")


@pytest.mark.parametrize(
    "settings",
    [
        {"exclude_seen": "no"},
        {"few_shot": "3"},
        {"beam_size": 2.5},
        {"max_events": None},
        {"seed": True},
        {"case": "UP"},
        {"template": 3},
    ],
)
def test_settings_of_another_kind(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(settings))}="):
        make(**settings)


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", None, float("nan"), True])
def test_k_of_another_kind(k: Any) -> None:
    with pytest.raises(RequestError, match="whole number"):
        make().recommend("", k)


def test_histories_that_people_try_first() -> None:
    recommender = make(exclude_seen=False)
    expected = recommender.recommend("0; 2").recommendations
    for history in ([0, 2], np.array([0, 2]), ("0", "2"), (str(i) for i in (0, 2))):
        assert recommender.recommend(history).recommendations == expected
    events = [Interaction("0", "buy"), Interaction("2", "buy")]
    assert recommender.recommend(events).recommendations == expected
    assert recommender.recommend(History(tuple(events))).recommendations == expected
    for wrong in (None, 7, [("buy", "0")], [None], [events[0], "2"], [True]):
        with pytest.raises(RequestError, match="is no history"):
            recommender.recommend(wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="Expected a list of histories"):
        recommender.recommend_many("007")
    with pytest.raises(RequestError, match="Expected a list of item ids"):
        recommender.score("", "007")


def test_things_that_are_no_data_or_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"genrec\.Dataset\.load"):
        Recommender("shop", tiny.language_model())  # type: ignore[arg-type]
    assert len(Recommender(CATALOG, folder).recommend("")) == 3
    for threads in ("2", 0, 100_000):
        with pytest.raises(SettingsError, match="threads="):
            Recommender(CATALOG, folder, threads=threads)  # type: ignore[arg-type]


NO_ITEMS: list[Any] = [
    Item("1", None),  # type: ignore[arg-type]
    Item(1, "x"),  # type: ignore[arg-type]
    ("1", "x"),
    Item("1", "\u200b\u3164"),
    Item("1", "x", {"title": 1}),
]


@pytest.mark.parametrize("item", NO_ITEMS)
def test_things_that_are_no_items(item: Any) -> None:
    with pytest.raises(DataError, match="data row 1"):
        Catalog([item])


def test_attributes_of_mixed_kinds_are_stored_as_text() -> None:
    table = Catalog([Item("1", "x", {"a": 1}), Item("2", "y", {"a": "b"})]).to_table()
    assert table["a"].to_pylist() == ["1", "b"]


def test_parquet_of_odd_types(tmp_path: Path) -> None:
    import datetime as dt

    good: dict[str, Any] = {"item_id": ["a"], "title": ["mug"]}
    odd = {
        "when": pa.array([dt.datetime(2001, 1, 1)], pa.timestamp("ns")),
        "tags": pa.array([["x", "y"]]),
        "more": pa.array([{"k": 1}]),
    }
    pq.write_table(pa.table({**good, **odd}), tmp_path / "i.parquet")
    catalog = Catalog.read(tmp_path / "i.parquet")
    assert catalog[0].attributes["tags"] == '["x", "y"]'
    assert str(catalog[0].attributes["when"]).startswith("2001-01-01")
    catalog.to_table()
    for name in ("item_id", "title"):
        pq.write_table(pa.table({**good, name: pa.array([["x"]])}), tmp_path / "bad.parquet")
        with pytest.raises(DataError, match="cannot be read as text"):
            Catalog.read(tmp_path / "bad.parquet")


def test_files_broken_in_the_middle(tmp_path: Path) -> None:
    import gzip

    packed = bytearray(gzip.compress((ITEMS * 50).encode()))
    packed[20:60] = b"\xff" * 40
    (tmp_path / "i.csv.gz").write_bytes(bytes(packed))
    with pytest.raises(DataError, match="cannot be read"):
        Catalog.read(tmp_path / "i.csv.gz")
    (tmp_path / "i.csv").write_text("x" * 200_000 + ",title\na,b\n")
    with pytest.raises(DataError):
        Catalog.read(tmp_path / "i.csv")
    assert zlib.error is not None


def test_headers_with_blank_lines_and_breaks(tmp_path: Path) -> None:
    items = '\n\nitem_id,title,"two\nlines"\na,mug,x\nb,bag\n'
    path = write(tmp_path, items=items)[0]
    with pytest.raises(DataError, match="data row 2: 2 cells"):
        Catalog.read(path)
    path.write_text(items.removesuffix("b,bag\n"))
    assert Catalog.read(path)[0].attributes == {"two\nlines": "x"}


def test_cut_titles_are_shown_as_they_are_read() -> None:
    catalog = Catalog([Item("a", "x " * 5000), Item("b", "red mug")])
    recommender = Recommender(catalog, tiny.language_model(), max_title_tokens=6)
    encoded = recommender.prompt(["a"])
    assert len(encoded.text) < 100
    again = tiny.tokenizer("llama")(encoded.text, add_special_tokens=False)["input_ids"]
    assert tiny.tokenizer("llama").decode(again) == tiny.tokenizer("llama").decode(encoded.ids)


def test_help_keeps_its_defaults() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "genrec.cli.main", "recommend", "--help-all"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "max(2k, 20)" in done.stdout
    assert "the data's habit" in done.stdout


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    code = "import sys; sys.argv=['genrec','doctor','--json']; from genrec.cli.main import main; main()"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" | head -c 1; echo ${{PIPESTATUS[0]}}',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.strip().endswith(("141", "0"))


def test_a_full_disk_for_output() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    done = subprocess.run(
        f"{sys.executable} -m genrec.cli.main --version > /dev/full",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_escapes_in_ids_do_not_reach_the_terminal(run: Run, tmp_path: Path, model: Path) -> None:
    events = "user_id,item_id,timestamp,behavior\n\x1b[31mEVIL,a,1,\x1b[1mbuy\n"
    items, path = write(tmp_path, events=events)
    code, out, err = run("prepare", "--items", items, "--interactions", path, "--name", "\x1b[5m",
                         "--out", tmp_path / "o")  # fmt: skip
    assert code == 0, err
    assert "\x1b" not in out
    code, _, err = run("recommend", tmp_path / "o", "--user", "x", "--model", model)
    assert "EVIL" in err
    assert "\x1b[31mEVIL" not in err


def test_damaged_dataset_folders_say_prepare_again(tmp_path: Path) -> None:
    items, events = write(tmp_path)
    Dataset.prepare(items, events)[0].save(tmp_path / "o")
    for name in ("catalog.parquet", "interactions.parquet"):
        shutil.copytree(tmp_path / "o", tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(DataError, match="Run `genrec prepare` again"):
            Dataset.load(tmp_path / name)
    text = (tmp_path / "o" / "dataset.json").read_text()
    (tmp_path / "o" / "dataset.json").write_text(
        text.replace('"exclude_seen": ', '"exclude_seen": "no", "x": ')
    )
    with pytest.raises(DataError, match="is damaged"):
        Dataset.load(tmp_path / "o")


def test_duplicates_are_named_by_their_rows(tmp_path: Path) -> None:
    items = "item_id,title\n,x\n1,mug\n1,bag\n"
    from genrec.data.readers.rejects import Rejects

    rejects = Rejects("items.csv")
    Catalog.read(write(tmp_path, items=items)[0], rejects=rejects)
    assert rejects.rows[1][1:3] == (3, "duplicate item_id '1' (first in data row 2)")


def test_unknown_behaviors_are_named(tmp_path: Path) -> None:
    items, events = write(tmp_path)
    found, _ = Dataset.prepare(items, events, options=EventOptions())
    with pytest.raises(GenrecError, match="Expected one of: buy, view"):
        found.interactions.targets("u", "test", "zzz")
    with pytest.raises(DataError, match="target_behavior='zzz'"):
        Dataset.prepare(items, events, target_behavior="zzz")


N = 9_000
LONG = {
    "spaces": "x" + " " * N + "y",
    "spaces after a comma": "," + " " * N + "x",
    "commas": "," * N,
    "pieces": "a;" * (N // 2),
    "parts": "a," * (N // 2),
    "给": "给" * N,
    "verbs": "and " * (N // 8) + "bought " * (N // 14),
    "then": "x then " * (N // 7),
    "next": "next " * (N // 5),
    "digits": "red mug " + "9" * N + "/5",
    "quotes": "“" * (N // 2) + "”" * (N // 2),
    "emoji": "👩‍🚀" * (N // 3),
    "right to left": "שלום " * (N // 5),
}


@pytest.mark.parametrize("typed", LONG.values(), ids=LONG.keys())
def test_long_typed_histories_are_read_in_seconds(typed: str) -> None:
    import time

    started = time.process_time()
    history, _ = make(encoder="ngrams").understand(typed)
    assert time.process_time() - started < 15  # they took minutes
    assert len(history) <= len(typed)


def test_very_long_typed_histories_are_refused() -> None:
    with pytest.raises(RequestError, match="Expected at most 20,000"):
        make().recommend("red mug; " * 12_000)
    assert len(make(exclude_seen=False).recommend(["red mug"] * 12_000)) == 3


def test_values_beyond_all_numbers_are_left_out() -> None:
    history, _ = make().understand("rated red mug " + "9" * 400 + "/5")
    assert [(i.item_id, i.value) for i in history.interactions] == [("0", None)]


def test_a_typed_subject_is_no_event() -> None:
    _, understood = make(encoder="none").understand("we bought a spaceship")
    assert [u.text for u in understood] == ["bought a spaceship"]


def test_models_with_nan_weights_write_nothing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for samples in (0, 5):
        recommender = Recommender(CATALOG, folder, decoder="match", n_samples=samples)
        with pytest.raises(ModelError, match="logits are not finite"):
            recommender.recommend("")


def test_emoji_are_not_all_the_same() -> None:
    catalog = Catalog([Item("1", "☕"), Item("2", "red mug")])
    recommender = Recommender(catalog, tiny.language_model(), match_threshold=0.0)
    recommender.matcher._encoder = embedder = tiny.LatinEmbedder()
    recommender.understand("🍵")
    assert not {"☕", "🍵"} & set(embedder.asked)


def test_prepare_again_drops_an_index(run: Run, tmp_path: Path) -> None:
    from genrec.matching.matcher import write_index

    items, events = write(tmp_path)
    arguments = ["prepare", "--items", items, "--interactions", events, "--out", tmp_path / "o"]
    assert run(*arguments)[0] == 0
    write_index(Dataset.load(tmp_path / "o").catalog, tmp_path / "o", tiny.LatinEmbedder())
    assert (tmp_path / "o" / "titles.safetensors").is_file()
    assert run(*arguments)[0] == 0
    assert not (tmp_path / "o" / "titles.safetensors").exists()


def test_a_damaged_index_says_index_again(run: Run, data: Path, model: Path) -> None:
    (data / "titles.safetensors").write_bytes(b"x")
    code, _, err = run("recommend", data, "--history", "zzz", "--model", model)
    assert code == 3
    assert "Run `genrec index` again" in err
