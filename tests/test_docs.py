"""The READMEs do what they say: their commands and code run, their links and lists are right."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
from pathlib import Path

import pytest
from support import tiny
from support.commands import Run
from support.house import ORDER

from genrec import Catalog, History, Interaction, Item
from genrec.cli import main
from genrec.prompts.template import Template

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "genrec" / "data" / "samples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_ZH = (ROOT / "README.zh.md").read_text(encoding="utf-8")
BOTH = pytest.mark.parametrize("readme", [README, README_ZH], ids=["en", "zh"])
TAKES_MODEL = {"prompt", "recommend", "explain", "evaluate", "train"}
SHORT = ("--max-targets", "20", "--eval-users", "0", "--tune-users", "0")  # appended to `train`


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a Markdown text that are marked with a language."""
    fenced: list[tuple[str, str]] = re.findall(
        r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    return [block for name, block in fenced if name == language]


def commands(readme: str) -> list[list[str]]:
    lines = "".join(blocks(readme, "console")).splitlines()
    return [shlex.split(line[len("$ genrec ") :]) for line in lines if line.startswith("$ genrec ")]


@BOTH
def test_the_commands_run(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for source, name in (("items", "items.csv"), ("interactions", "events.csv")):
        if readme is README:
            packed = (SAMPLES / "online_retail_demo" / f"{source}.csv.gz").read_bytes()
            Path(name).write_bytes(gzip.decompress(packed))
        else:
            shutil.copy(SAMPLES / "zh_mini" / f"{source}.csv", name)
    assert len(commands(readme)) >= 8
    for arguments in commands(readme):
        given = list(arguments)
        if given[0] in TAKES_MODEL and "--run" not in given:
            given += ["--model", str(model)]
        if given[0] == "train":
            given += SHORT
        code, out, err = run(*given)
        assert code == 0, (arguments, err)
        assert out or given[0] == "train", arguments
    for written in ("why.html", "report.html", "runs/one/run.json"):
        assert Path(written).is_file()


@BOTH
def test_the_first_recommendation_takes_five_lines(readme: str) -> None:
    (block,) = blocks(readme, "python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 5


@BOTH
@pytest.mark.model
def test_the_python_runs(capsys: pytest.CaptureFixture[str], readme: str) -> None:
    (block,) = blocks(readme, "python")
    exec(compile(block, "README", "exec"), {})
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
    assert blocks(README_ZH, "") == [prompt.text + "\n"]


def test_every_command_has_help_and_is_in_the_readme() -> None:
    from typer.testing import CliRunner

    names = [c.name or c.callback.__name__ for c in main.app.registered_commands if c.callback]
    assert len(names) >= 17
    for name in names:
        assert CliRunner().invoke(main.app, [name, "--help"]).exit_code == 0
        assert f"`{name}`" in README or f"genrec {name} " in README, name


@BOTH
def test_the_readme_is_short(readme: str) -> None:
    assert len(readme.splitlines()) <= 160


def test_the_architecture_lists_every_package_in_import_order() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == ORDER


def test_the_kinds_of_tiny_models_are_as_many_as_the_guide_says() -> None:
    assert len(tiny.KINDS) == 5
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "tiny random models of five kinds" in text


DOCUMENTS = [
    "README.md", "README.zh.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md",
    "examples/README.md", "examples/02_csv_to_recommendations.md",
    "examples/02_csv_to_recommendations.zh.md",
]  # fmt: skip


ELSEWHERE = {"genrec/templates", "benchmarks/RESULTS.md"}  # in the wheel; before a rename


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_paths_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert link.startswith("https://") or ((ROOT / name).parent / link).exists(), link
    folders = [ROOT, ROOT / "genrec", (ROOT / name).parent]
    for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)+(?:\.\w+|/)?)`", text):
        if "NAME" in path or path in ELSEWHERE:
            continue
        if (ROOT / path.split("/")[0]).is_dir() or (ROOT / "genrec" / path.split("/")[0]).is_dir():
            assert any((folder / path).exists() for folder in folders), path
