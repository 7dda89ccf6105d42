"""Test that models load quietly and without optional packages."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support import tiny

from genrec import Catalog, Item, LanguageModel, Recommender
from genrec.errors import ModelError, SettingsError
from genrec.models.quiet import quiet_transformers


def test_loading_is_quiet_and_leaves_logging_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    names = ("bitsandbytes.backends.cpu.ops", "huggingface_hub.file_download", "transformers.x")
    with quiet_transformers():
        for name in names:
            logging.getLogger(name).warning("not said")
    for name in names[:2]:
        logging.getLogger(name).warning("said")
    assert "not said" not in caplog.text
    assert caplog.text.count("said") == 2


def test_no_optional_package_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    said = logging.getLogger("bitsandbytes.backends.cpu.ops")
    said.warning("Failed: %s. Please make sure you already `pip install kernels`", "no such module")
    said.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


CATALOG = Catalog(Item(str(n), t) for n, t in enumerate(["red mug", "doll", "bag"]))


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


def test_things_that_are_no_data_or_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"genrec\.Dataset\.load"):
        Recommender("shop", tiny.language_model())  # type: ignore[arg-type]
    assert len(Recommender(CATALOG, folder).recommend("")) == 3
    for threads in ("2", 0, 100_000):
        with pytest.raises(SettingsError, match="threads="):
            Recommender(CATALOG, folder, threads=threads)  # type: ignore[arg-type]


def test_models_with_nan_weights_write_nothing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for samples in (0, 5):
        recommender = Recommender(CATALOG, folder, decoder="match", n_samples=samples)
        with pytest.raises(ModelError, match="logits are not finite"):
            recommender.recommend("")
