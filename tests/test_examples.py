"""The examples run as they stand, on the real model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def output(name: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before
    return capsys.readouterr().out


def test_examples_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.model
def test_next_item(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output("01_next_item.py", capsys).splitlines()
    sentence = "The user browsed Running shoes, bought Sports socks, and next they will buy"
    assert lines[0] == sentence
    assert lines[6] == "用户浏览了跑步鞋，购买了运动袜，接下来会购买"
    assert [line.split(".")[0].strip() for line in lines[1:6]] == ["1", "2", "3", "4", "5"]


@pytest.mark.model
@pytest.mark.slow
def test_few_shot(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("03_few_shot.py", capsys, "--users", "2", "--shots", "1")
    for name in ("0-shot", "1-shot", "popular"):
        assert name in text
