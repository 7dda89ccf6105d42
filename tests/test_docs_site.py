"""The code blocks of docs/**/*.md run as they stand, with a tiny model in place of the default one.

A page's blocks run in order in one folder that holds the dataset folder ``shop``. In a console block
the lines ``$ genrec ...`` run. Blocks after a comment ``<!-- test: slow -->`` run in a test of their
own, marked ``slow``; those after ``<!-- test: none -->`` never run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.amount import FULL

from genrec.cli import main
from genrec.models import lazy_model as lazy_models
from genrec.models.language_model import LanguageModel

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SAMPLE = ROOT / "genrec" / "data" / "samples" / "online_retail_demo"
BLOCK = re.compile(r"^(?:<!-- test: (\w+) -->\n)?```(python|console)\n(.*?)^```$", re.S | re.M)
PAGES = sorted(p for p in DOCS.rglob("*.md") if BLOCK.search(p.read_text(encoding="utf-8")))
IDS = [str(p.relative_to(DOCS)) for p in PAGES]
SMALL = {
    "train": ["--max-targets", "40", "--eval-users", "0", "--tune-users", "2", "--threads", "1"],
    "fit": ["--minutes", "1", "--threads", "1"],
}

Genrec = Callable[..., str]


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return the mark, the language and the text of each block of a page."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(mark, language, text) for mark, language, text in found if mark != "none"]


@pytest.fixture
def genrec(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Genrec:
    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["genrec", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main.main()
        captured = capsys.readouterr()
        assert not stop.value.code, (arguments, captured.err)
        return captured.out

    return call


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from genrec.data.dataset import Dataset

    folder = tmp_path_factory.mktemp("docs") / "shop"
    data, _ = Dataset.prepare(SAMPLE / "items.csv.gz", SAMPLE / "interactions.csv.gz")
    data.save(folder)
    return folder


@pytest.fixture
def folder(shop: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as the guides have it, in which the default model is tiny."""
    shutil.copytree(shop, tmp_path / "shop")
    for name in ("sold_out.txt", "candidates.txt"):
        (tmp_path / name).write_text("22720\n21977\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    load = LanguageModel.load
    monkeypatch.setattr(LanguageModel, "load", lambda _, **options: load(str(model), **options))
    lazy = lazy_models.lazy_model
    monkeypatch.setattr(lazy_models, "lazy_model", lambda _, **options: lazy(str(model), **options))
    return tmp_path


def run_page(page: Path, genrec: Genrec, mark: str = "") -> None:
    """Run the blocks of a page that have this mark, in order."""
    names: dict[str, Any] = {}
    for marked, language, text in blocks(page):
        if marked != mark:
            continue
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
            continue
        for line in text.splitlines():
            if line.startswith("$ genrec "):
                line = line.replace("$sample", str(SAMPLE)).replace("tests/", f"{ROOT}/tests/")
                arguments = shlex.split(line.removeprefix("$ genrec "))
                arguments += SMALL.get(arguments[0], [])
                assert genrec(*arguments), line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_blocks_run(page: Path, folder: Path, genrec: Genrec) -> None:
    run_page(page, genrec)


def transcripts(page: Path) -> list[tuple[str, str]]:
    """Return the commands of a page that are followed by their output, with this output."""
    text = "".join(block for _, language, block in blocks(page) if language == "console")
    parts = re.findall(r"^\$ (genrec .*\n)((?:(?!\$ ).*\n)*)", text, re.M)
    return [(command.strip(), output) for command, output in parts if output]


def is_part_of(said: str, printed: str) -> bool:
    """Check whether a text was printed; a line with three dots stands for any lines."""
    lines = (
        r"(?:.*\n)*?" if line == "..." else re.escape(line) + r" *\n" for line in said.splitlines()
    )
    return re.match("".join(lines), printed) is not None


WITH_OUTPUT = [page for page in PAGES if transcripts(page)]


@pytest.mark.parametrize("page", WITH_OUTPUT, ids=[str(p.relative_to(DOCS)) for p in WITH_OUTPUT])
def test_what_prepare_prints_is_true(page: Path, folder: Path, genrec: Genrec) -> None:
    said = [one for one in transcripts(page) if one[0].startswith("genrec prepare ")]
    assert said
    for command, output in said:
        printed = genrec(*shlex.split(command.replace("tests/", f"{ROOT}/tests/"))[1:])
        assert is_part_of(output, printed), printed


@pytest.mark.model
@pytest.mark.parametrize("page", WITH_OUTPUT, ids=[str(p.relative_to(DOCS)) for p in WITH_OUTPUT])
def test_what_commands_print_is_true_but_for_digits(
    page: Path, genrec: Genrec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command, output in transcripts(page):
        printed = genrec(*shlex.split(command.replace("tests/", f"{ROOT}/tests/"))[1:])
        assert is_part_of(*(re.sub(r"\d+", "#", text) for text in (output, printed))), printed


SLOW = [page for page in PAGES if any(mark == "slow" for mark, _, _ in blocks(page))]
if not FULL:  # tests/cli/test_fit.py and test_priors do the same on small data in a few seconds
    SLOW = [page for page in SLOW if page.stem not in {"fit", "priors"}]


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW, ids=[str(p.relative_to(DOCS)) for p in SLOW])
def test_the_slow_blocks_run(page: Path, folder: Path, genrec: Genrec) -> None:
    run_page(page, genrec, "slow")


COMMANDS = {
    "prepare": [
        "prepare",
        "--items",
        str(SAMPLE / "items.csv.gz"),
        "--interactions",
        str(SAMPLE / "interactions.csv.gz"),
        "--out",
        "again",
    ],
    "recommend, rank, score": ["recommend", "shop", "--user", "12493", "-k", "2"],
    "explain": ["explain", "shop", "--user", "12493", "--item", "22720", "--evidence", "fast"],
    "likes": ["likes", "shop", "--user", "12493", "--items", "candidates.txt"],
    "similar": ["similar", "shop", "--item", "22720", "-k", "2", "--encoder", "ngrams"],
    "prompt": ["prompt", "shop", "--user", "12493"],
    "evaluate": ["evaluate", "shop", "--users", "3", "--against", "popular"],
    "tune": ["tune", "shop", "--users", "3"],
    "audit": ["audit", "shop"],
}


@pytest.mark.parametrize("section", COMMANDS)
def test_the_fields_of_json_are_documented(section: str, folder: Path, genrec: Genrec) -> None:
    page = (DOCS / "reference" / "outputs.md").read_text(encoding="utf-8")
    part = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    part = part.partition("\n### ")[0]
    rows = re.findall(r"^\* - (`.*)$", part, re.M)
    documented = {name for row in rows for name in re.findall(r"`([\w@]+)`", row)}
    answer = json.loads(genrec(*COMMANDS[section], "--json"))
    assert set(answer) <= documented
    for item in [*answer.get("recommendations", []), *answer.get("similar", [])]:
        assert set(item) <= documented
