"""Training examples as files: written, read by datasets, trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.baskets import dataset
from support.tiny_runs import FEW, fresh, made

from genrec import Recommender
from genrec.errors import DataError, SettingsError
from genrec.training import examples, export, trainer
from genrec.training.config import Training
from genrec.training.title_paths import TitlePaths


@pytest.mark.parametrize("form", export.FORMATS)
@pytest.mark.parametrize("ending", export.ENDINGS)
def test_what_is_written_is_what_inference_reads(tmp_path: Path, form: str, ending: str) -> None:
    datasets = pytest.importorskip("datasets")
    data = dataset([[(0, "buy"), (1, "buy")], [(3, "view")], [(5, "buy")]], users=2)
    path = tmp_path / f"examples{ending}"
    many = examples.write_examples(data, path, tiny.language_model(), form=form, case="lower")
    assert many == 8
    kind = "json" if ending == ".jsonl" else "parquet"
    found = datasets.load_dataset(
        kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(found) == 8
    recommender = Recommender(data, tiny.language_model(), case="lower")
    last = found[3]
    known = list(data.interactions.history("u0").interactions[:3])
    text = recommender.prompt(known).text
    assert last["user_id"] == "u0"
    assert last["item_id"] == "i5"
    if form == "messages":
        assert [m["role"] for m in last["messages"]] == ["user", "assistant"]
        assert last["messages"][0]["content"] == text
        assert last["messages"][1]["content"] == "doll house"
    else:
        assert (last["prompt"], last["completion"]) == (text, " doll house\n")


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_file_is_trained_on(tmp_path: Path, weight: float) -> None:
    data, path = made(6, users=2), tmp_path / "examples.jsonl"
    many = examples.write_examples(data, path, tiny.language_model())
    recommender = Recommender(data, tiny.language_model())
    settings = Training(examples=str(path), pack_tokens=200, vocab_weight=weight)
    found, _ = examples.make_examples(recommender, data, settings)
    own, _ = examples.make_examples(
        recommender, data, replace(settings, layout="window", examples=None)
    )
    assert found.n_targets == own.n_targets == many
    texts = [sorted(map(tuple, (r.ids.tolist() for r in e.rows))) for e in (found, own)]
    decode = recommender.model.tokenizer.decode
    assert [decode(t) for t in texts[0]] == [decode(t) for t in texts[1]]
    run = trainer.train(
        data, tmp_path / "run", fresh(), examples=str(path), vocab_weight=weight, **FEW
    )
    assert run.finished


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    bad: list[Any] = [
        [], 3, {"prompt": "x"}, {"prompt": 1, "completion": "y"}, {"prompt": "x", "completion": " "},
        {"messages": []}, {"messages": [{"role": "user", "content": "x"}]}, {"messages": "x"},
        {"messages": [{"role": "a", "content": "x"}, {"role": "b", "content": "y"}]},
    ]  # fmt: skip
    good = {"prompt": "x", "completion": "red mug"}
    for row in bad:
        path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
        with pytest.raises(DataError, match=r"bad\.jsonl, row 2: .* Expected \{'prompt'"):
            export.read(path)
    for text in ("", "{", "\n\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"Expected"):
            export.read(path)
    with pytest.raises(DataError, match="Cannot read"):
        export.read(tmp_path / "none.parquet")
    with pytest.raises(SettingsError, match="Expected a file name"):
        examples.write_examples(made(3), tmp_path / "a.txt", tiny.language_model())
    with pytest.raises(SettingsError, match="Unknown value format='chat'"):
        examples.write_examples(made(3), tmp_path / "a.jsonl", tiny.language_model(), form="chat")


def test_completions_that_are_no_titles_are_left_out_and_counted() -> None:
    data = made(3)
    recommender = Recommender(data, tiny.language_model())
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    given = [
        {"prompt": "bought:", "completion": " red mug\n"},
        {"prompt": "bought:", "completion": "a horse"},
        {"prompt": "bought: " * 200, "completion": "red mug"},
    ]
    rows, rejected = export.read_rows(given, recommender.encoder, data.catalog, paths, 60)
    assert len(rows) == 1
    assert rejected == {
        "the completion is not a title in the catalog": 1,
        "the example has more than 60 tokens (pack_tokens)": 1,
    }
    with pytest.raises(DataError, match="No example can be used"):
        export.read_rows(given[1:], recommender.encoder, data.catalog, paths, 60)
    text = "<|im_start|>bought:"
    ids = recommender.encoder.plain(text)
    assert not set(ids) & recommender.encoder.control_ids
