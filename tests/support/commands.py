"""The command line, run in process; fixtures for a tiny model and a small dataset."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import genrec
from genrec.cli import main
from support import tiny
from support.shop_files import write

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["genrec", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-model")
    tiny.language_model().model.save_pretrained(folder)
    tiny.tokenizer("llama").save_pretrained(folder)
    return folder


@pytest.fixture
def data(run: Run, tmp_path: Path) -> Path:
    items, events = write(tmp_path)
    code, out, err = run("prepare", "--items", items, "--interactions", events,
                         "--out", tmp_path / "data")  # fmt: skip
    assert code == 0, err
    assert "2 users, 3 items and 6 events" in out
    return tmp_path / "data"


def answer(run: Run, *arguments: object) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def shop(run: Run, tmp_path: Path) -> Path:
    sample = Path(genrec.__file__).parent / "data" / "samples" / "zh_mini"
    items, events = sample / "items.csv", sample / "interactions.csv"
    code, _, err = run(
        "prepare", "--items", items, "--interactions", events, "--out", tmp_path / "shop"
    )
    assert code == 0, err
    return tmp_path / "shop"
