"""A lazy model answers like the loaded one, and loads its weights only when they are needed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_runs import saved

from genrec import Dataset, LanguageModel, Recommender
from genrec.data.datasets import load
from genrec.errors import ModelError, SettingsError
from genrec.models import lazy_model as lazy
from genrec.models.base import GenerationOptions, TextModel, can_score
from genrec.models.lazy_model import LazyModel
from genrec.models.llama import Llama
from genrec.training import trainer

OPTIONS: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1}
TRAIN: dict[str, Any] = {"max_targets": 4, "eval_users": 0, "dtype": "float32", "threads": 1}


def quiet(message: str) -> None:
    del message


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("zh_mini")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """Tiny models, and runs of the Llama with an adapter and with all weights."""
    place = tmp_path_factory.mktemp("models")
    for kind in ("llama", "qwen3"):
        saved(place, kind)
    model = str(place / "tiny-llama")
    trainer.train(data, place / "run", model, device="cpu", **TRAIN)
    trainer.train(data, place / "whole", model, device="cpu", lora_rank=0, **TRAIN)
    return place


def made(folder: Path, what: str) -> tuple[LazyModel, LanguageModel]:
    """A lazy model and the same model as transformers and PEFT load it."""
    if what in {"run", "whole"}:
        run = folder / what
        return lazy.lazy_run(run, None, log=quiet, **OPTIONS), LanguageModel.of_run(run, **OPTIONS)
    name = str(folder / f"tiny-{what}")
    return lazy.lazy_model(name, log=quiet, **OPTIONS), LanguageModel.load(name, **OPTIONS)


@pytest.mark.parametrize("what", ["llama", "qwen3", "run", "whole"])
def test_lists_are_those_of_the_loaded_model(folder: Path, data: Dataset, what: str) -> None:
    ours, theirs = made(folder, what)
    checked: object = ours
    assert can_score(checked)
    assert isinstance(checked, TextModel)
    assert (ours.name, ours.context) == (theirs.name, theirs.context)
    assert ours.count_tokens("RED mug") == theirs.count_tokens("RED mug")
    if what in {"run", "whole"}:
        recommenders = [
            Recommender.load(folder / what, data, model=m, model_role="fuse")
            for m in (ours, theirs)
        ]
    else:
        recommenders = [Recommender(data, m, model_role="fuse") for m in (ours, theirs)]
    history = recommenders[0].history(data.interactions.user_ids[0])
    prompts = [r.prompt(history) for r in recommenders]
    assert prompts[0] == prompts[1]
    assert "_loaded" not in vars(ours)
    lists = [r.recommend(history, 5) for r in recommenders]
    assert "_loaded" in vars(ours)
    for mine, reference in zip(*lists, strict=True):
        assert mine.item_id == reference.item_id
        assert mine.logprob == pytest.approx(reference.logprob, abs=1e-4)
    assert isinstance(ours.load().model, Llama) == (what != "qwen3")
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.describe() == theirs.describe()
    assert ours.ends == theirs.ends
    assert recommenders[0].tuning_key() == recommenders[1].tuning_key()
    options = GenerationOptions(n=2, max_tokens=4, stop="\n")
    texts = [m.generate(prompts[0], options) for m in (ours, theirs)]
    assert [t.text for t in texts[0]] == [t.text for t in texts[1]]


def test_a_light_model_cannot_be_saved(folder: Path, tmp_path: Path) -> None:
    model = made(folder, "llama")[0]
    with pytest.raises(ModelError, match="without transformers cannot be saved"):
        model.load().save(tmp_path / "copy")
    with pytest.raises(AttributeError):
        model.no_such_thing  # noqa: B018


def test_adapters_that_genrec_cannot_merge_are_left_to_peft(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrec.models import language_model

    monkeypatch.setattr(language_model, "merge_adapter", lambda model, folder: False)
    ours, theirs = made(folder, "run")
    assert not isinstance(ours.load().model, Llama)
    assert ours.fingerprint() == theirs.fingerprint()


def test_weights_that_changed_are_found_when_they_are_loaded(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "tiny-llama", tmp_path / "base")
    other = LanguageModel.load(str(tmp_path / "base"), **OPTIONS)
    other.model.model.embed_tokens.weight.data += 1.0
    shutil.rmtree(tmp_path / "base")
    other.save(tmp_path / "base")
    model = lazy.lazy_run(folder / "run", str(tmp_path / "base"), log=quiet, **OPTIONS)
    assert model.context
    with pytest.raises(ModelError, match="trained with a different base model"):
        model.load()


@pytest.mark.parametrize(
    ("what", "match"),
    [("nothing", "no such folder"), ("file", "It is a file"), ("run", "The folder is a run")],
)
def test_what_cannot_be_found_is_said_at_once(folder: Path, what: str, match: str) -> None:
    (folder / "file").write_text("x")
    with pytest.raises(ModelError, match=match):
        lazy.lazy_model(str(folder / what), log=quiet, **OPTIONS)
    with pytest.raises(ModelError, match=match):
        lazy.lazy_run(folder / "run", str(folder / what), log=quiet, **OPTIONS)
    with pytest.raises(ModelError, match="not a run folder"):
        lazy.lazy_run(folder / "tiny-llama", None, log=quiet, **OPTIONS)


def test_a_base_model_that_was_moved_is_said_at_once(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    about["base_model"] = str(tmp_path / "nothing")
    (tmp_path / "run" / "run.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ModelError, match=r"The base model of the run .* --model"):
        lazy.lazy_run(tmp_path / "run", None, log=quiet, **OPTIONS)
    moved = lazy.lazy_run(tmp_path / "run", str(folder / "tiny-llama"), log=quiet, **OPTIONS)
    assert isinstance(moved.load().model, Llama)


@pytest.mark.parametrize(
    "options",
    [{"threads": 0}, {"device": "moon"}, {"dtype": "int3"}, {"quantize": "int1"}],
    ids=str,
)
def test_wrong_options_are_found_when_the_weights_are_loaded(
    folder: Path, options: dict[str, Any]
) -> None:
    model = lazy.lazy_model(str(folder / "tiny-llama"), log=quiet, **{**OPTIONS, **options})
    with pytest.raises(SettingsError, match=next(iter(options))):
        model.load()


def test_the_number_of_threads_is_known_before_the_weights_are_loaded(folder: Path) -> None:
    """A prior that ranks without the model works with as many."""
    before = torch.get_num_threads()
    try:
        for given, expected in ((before + 2, before + 2), (None, before + 1)):
            torch.set_num_threads(before + 1)
            options = {**OPTIONS, "threads": given}
            model = lazy.lazy_model(str(folder / "tiny-llama"), log=quiet, **options)
            assert model.threads == expected
            assert "_loaded" not in vars(model)
            assert model.load().threads == model.threads == expected
            torch.set_num_threads(before)
            assert model.threads == before  # the number is that of the whole process
    finally:
        torch.set_num_threads(before)


def test_a_damaged_tokenizer_is_an_error_of_the_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "tiny-llama", tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_text("{")
    model = lazy.lazy_model(str(tmp_path / "base"), log=quiet, **OPTIONS)
    with pytest.raises(ModelError, match="cannot be loaded"):
        model.count_tokens("a")
