"""The README's commands and code run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tiny
from test_cli import Run, model, run

from genrec import cli

assert callable(model)
assert callable(run)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    blocks: list[tuple[str, str]] = re.findall(
        r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE
    )
    return next(b for name, b in blocks if name == language and holding in b)


def test_the_commands_run(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = ROOT / "genrec" / "data" / "online_retail_demo"
    commands = [
        line.removeprefix("$ genrec ").replace("$sample", str(sample))
        for line in block("console", "genrec prepare").splitlines()
        if line.startswith("$ genrec ")
    ]
    assert len(commands) >= 6
    for command in commands:
        arguments = shlex.split(command)
        if arguments[0] in {"prompt", "recommend"}:
            arguments += ["--model", str(model)]
        code, out, err = run(*arguments)
        assert code == 0, (command, err)
        assert out


def python_block() -> str:
    return block("python", "import genrec")


def test_the_first_recommendation_takes_at_most_ten_lines() -> None:
    assert len([line for line in python_block().splitlines() if line.strip()]) <= 10


@pytest.mark.model
def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_block(), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]


def test_the_file_tree_lists_every_module() -> None:
    tree = block("", "genrec/\n  __init__")
    listed = set(re.findall(r"^  (\w+)\s", tree, re.MULTILINE))
    modules = {p.stem for p in (ROOT / "genrec").glob("*.py")}
    assert modules <= listed


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    for command in ("prepare", "prompt", "recommend", "demo", "doctor"):
        result = CliRunner().invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0
        assert command in README or command in ("demo",)


def test_the_kinds_of_tiny_models_are_as_many_as_the_readme_says() -> None:
    assert len(tiny.KINDS) == 5
    assert "tiny random models of five kinds" in README
