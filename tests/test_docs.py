"""The commands and code of both READMEs run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tiny
from test_cli import Run, model, run

from genrec import Catalog, History, Interaction, Item
from genrec.cli import main
from genrec.prompts.template import Template

assert callable(model)
assert callable(run)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_ZH = (ROOT / "README.zh.md").read_text(encoding="utf-8")
BOTH = pytest.mark.parametrize("readme", [README, README_ZH], ids=["en", "zh"])


def block(readme: str, language: str, holding: str) -> str:
    blocks: list[tuple[str, str]] = re.findall(
        r"^```(\w*)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE
    )
    return next(b for name, b in blocks if name == language and holding in b)


@BOTH
def test_the_commands_run(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = block(readme, "console", "genrec prepare").splitlines()
    sample = ROOT / lines[0].removeprefix("$ sample=")
    commands = [
        line.removeprefix("$ genrec ").replace("$sample", str(sample))
        for line in lines
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


def test_the_evaluation_runs(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = ROOT / "genrec" / "data" / "samples" / "online_retail_demo"
    files = ("--items", sample / "items.csv.gz", "--interactions", sample / "interactions.csv.gz")
    assert run("prepare", *files, "--out", "shop")[0] == 0
    for line in block(README, "console", "genrec evaluate").splitlines():
        arguments = shlex.split(line.removeprefix("$ genrec "))
        if arguments[0] == "evaluate" and "--no-model" not in arguments:
            arguments += ["--model", str(model)]
        code, out, err = run(*arguments)
        assert code == 0, (line, err)
        assert out
    assert (tmp_path / "runs" / "zero-shot.html").is_file()


def test_the_explanations_run(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = ROOT / "genrec" / "data" / "samples" / "online_retail_demo"
    files = ("--items", sample / "items.csv.gz", "--interactions", sample / "interactions.csv.gz")
    assert run("prepare", *files, "--out", "shop")[0] == 0
    for line in block(README, "console", "genrec explain").splitlines():
        code, out, err = run(*shlex.split(line.removeprefix("$ genrec ")), "--model", str(model))
        assert code == 0, (line, err)
        assert out
    assert (tmp_path / "why.html").is_file()


@BOTH
def test_the_searches_run(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = ROOT / "genrec" / "data" / "samples" / "online_retail_demo"
    files = ("--items", sample / "items.csv.gz", "--interactions", sample / "interactions.csv.gz")
    assert run("prepare", *files, "--out", "shop")[0] == 0
    for name in ("sold_out.txt", "candidates.txt"):
        (tmp_path / name).write_text("22720\n21977\n", encoding="utf-8")
    for line in block(readme, "console", "genrec rank").splitlines():
        code, out, err = run(*shlex.split(line.removeprefix("$ genrec ")), "--model", str(model))
        assert code == 0, (line, err)
        assert out


def test_the_prior_runs(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = ROOT / "genrec" / "data" / "samples" / "online_retail_demo"
    files = ("--items", sample / "items.csv.gz", "--interactions", sample / "interactions.csv.gz")
    assert run("prepare", *files, "--out", "shop")[0] == 0
    for line in block(README, "console", "genrec tune").splitlines():
        code, out, err = run(*shlex.split(line.removeprefix("$ genrec ")), "--model", str(model))
        assert code == 0, (line, err)
        assert out
    assert (tmp_path / "shop" / "tuned.json").is_file()


def python_block(readme: str) -> str:
    return block(readme, "python", "import genrec")


@BOTH
def test_the_first_recommendation_takes_at_most_ten_lines(readme: str) -> None:
    assert len([line for line in python_block(readme).splitlines() if line.strip()]) <= 10


@BOTH
@pytest.mark.model
def test_the_python_runs(capsys: pytest.CaptureFixture[str], readme: str) -> None:
    exec(compile(python_block(readme), "README", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]


def test_the_chinese_sentence_is_what_the_template_writes() -> None:
    catalog = Catalog([Item(str(n), t) for n, t in enumerate(["跑步鞋", "运动袜", "水壶"])])
    events = (
        Interaction("0", "browse"),
        Interaction("1", "buy"),
        Interaction("2", "rate", value=5),
    )
    template = Template.load("sentence", "zh")
    prompt = template.render(catalog, History(events), "buy", scale=5)
    assert block(README_ZH, "", "接下来会购买") == prompt.text + "\n"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    for command in (
        "prepare",
        "prompt",
        "recommend",
        "explain",
        "tune",
        "evaluate",
        "audit",
        "demo",
        "doctor",
        "likes",
    ):
        result = CliRunner().invoke(main.app, [command, "--help"])
        assert result.exit_code == 0
        assert command in README or command in ("demo",)


def test_the_kinds_of_tiny_models_are_as_many_as_the_readme_says() -> None:
    assert len(tiny.KINDS) == 5
    assert "tiny random models of five kinds" in README
