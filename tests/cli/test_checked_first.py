"""What can be checked from the dataset alone is checked before a model is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run, answer
from support.tiny_runs import FEW, fresh, made

from genrec.training import trainer

ASKED = ("--user", "u")
RANKS = ("rank", "score", "likes")
LISTS = ("recommend", "explain", "rank", "score", "prompt")


def files(folder: Path) -> dict[str, str]:
    """Write files of item ids, and return the arguments that stand for them."""
    texts = {
        "KNOWN": "a\nb\n",
        "SOME": "a\ngone\nb\nlost\n",
        "UNKNOWN": "gone\nlost\n",
        "EMPTY": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: str(folder / name) for name in texts} | {"NOFILE": str(folder / "nofile")}


CASES: list[tuple[tuple[str, ...], list[str], int, str]] = [
    (LISTS, ["--user", "zz"], 6, "User 'zz' is not among the 2 users"),
    (LISTS, ["--history", "x" * 20_001], 6, "Expected at most 20,000"),
    (LISTS, [*ASKED, "--template", "nope"], 4, "Expected one of"),
    (LISTS, [*ASKED, "--language", "xx"], 4, "xx"),
    (LISTS, [*ASKED, "--target-behavior", "steal"], 2, "target_behavior='steal' is not known"),
    (("recommend", "rank"), [*ASKED, "--few-shot", "9", "--include-seen"], 6, "Lower few_shot"),
    (("recommend",), [*ASKED, "--prior", "collaborative", "--target-behavior", "rate"], 2, "no events"),
    (("recommend", "rank"), [*ASKED, "--tuned", "NOFILE"], 2, "Expected a file written by `genrec tune"),
    (("recommend",), [*ASKED, "-k", "0"], 6, "k=0 is not valid. Expected a whole number"),
    (("explain",), [*ASKED, "-k", "-3"], 6, "k=-3"),
    (("recommend",), [*ASKED, "--where", "price <"], 6, "price <"),
    (("recommend",), [*ASKED, "--where", "prize < 3"], 6, "prize"),
    (("recommend",), [*ASKED, "--where", "price > 99"], 6, "filters exclude all items"),
    (("recommend",), [*ASKED, "--cap", "brand=2"], 6, "no column 'brand'"),
    (("recommend",), [*ASKED, "--allow", "SOME"], 6, "'gone' is not in the catalog"),
    (("recommend",), [*ASKED, "--deny", "UNKNOWN"], 6, "'gone' is not in the catalog"),
    (("recommend",), [*ASKED, "--allow", "NOFILE"], 3, "cannot be read"),
    (("recommend",), [*ASKED, "--exclude-seen"], 6, "The user has already interacted with all items"),
    (("recommend",), [*ASKED, "--include-seen", "--explain", "--style", "rude"], 4, "Unknown value style='rude'"),
    (("explain",), [*ASKED, "--style", "rude"], 4, "Unknown value style='rude'"),
    (RANKS, [*ASKED, "--items", "UNKNOWN"], 6, "2 of 2 item ids are not in the catalog"),
    (RANKS, [*ASKED, "--items", "SOME", "--strict"], 6, "2 of 4 item ids are not in the catalog"),
    (RANKS, [*ASKED, "--items", "NOFILE"], 3, "cannot be read"),
    (RANKS, [*ASKED, "--items", "EMPTY"], 3, "is empty"),
    (("rank",), [*ASKED, "--items", "KNOWN", "--exclude-seen"], 6, "The user has already interacted with all items"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "arguments", "code", "message"),
    [(command, *rest) for commands, *rest in CASES for command in commands],
)
def test_requests_are_checked_before_the_model_is_loaded(
    run: Run,
    data: Path,
    tmp_path: Path,
    command: str,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """The model does not exist, so a message about the request means that it was checked first."""
    names = files(tmp_path)
    given = [names.get(a, a) for a in arguments]
    if command == "explain":
        given += ["--item", "a"]
    got, out, err = run(command, data, *given, "--model", "/no/such/model")
    assert message in err
    assert got == code
    assert "Traceback" not in out + err


def test_the_item_to_explain_is_checked_before_the_model_is_loaded(run: Run, data: Path) -> None:
    for item, message in (
        ("zz", "Item 'zz' is not in the catalog"),
        ("Dol", "similar titles are 'Doll'"),
    ):
        code, _, err = run(
            "explain", data, *ASKED, "--item", item, "--model", "/no/such/model"
        )  # fmt: skip
        assert code == 6
        assert message in err
    code, _, err = run("explain", data, *ASKED, "--item", "Doll", "--model", "/no/such/model")
    assert code == 5
    assert "no such folder" in err


def test_the_settings_of_a_run_count_in_the_check(run: Run, tmp_path: Path) -> None:
    made(6, users=2).save(tmp_path / "data")
    trainer.train(
        made(6, users=2), tmp_path / "run", fresh(), template="sentence", layout="window", **FEW
    )
    arguments = ["recommend", tmp_path / "data", "--history", "", "--run", tmp_path / "run"]
    code, _, err = run(*arguments, "--few-shot", 2)  # the run's template shows no demonstrations
    assert code == 2
    assert "cannot be used with template 'sentence'" in err
    for nowhere in (tmp_path / "nowhere", tmp_path / "data"):
        code, _, err = run("recommend", tmp_path / "data", "--history", "", "--run", nowhere)
        assert code == 5
        assert "is not a run folder" in err


@pytest.mark.parametrize("command", RANKS)
def test_unknown_items_are_skipped_and_reported(
    run: Run, data: Path, model: Path, tmp_path: Path, command: str
) -> None:
    names = files(tmp_path)
    arguments = [command, data, "--history", "", "--model", model, "--items"]
    note = "2 of 4 item ids are not in the catalog: 'gone', 'lost'. They were skipped."
    value = answer(run, *arguments, names["SOME"])
    plain: dict[str, Any] = answer(run, *arguments, names["KNOWN"], "--strict")
    part = "items" if command == "likes" else "recommendations"
    assert value[part] == plain[part]
    assert {i["item_id"] for i in value[part]} == {"a", "b"}
    assert value["unknown"] == ["gone", "lost"]
    assert note in value["notes"]
    assert plain["unknown"] == []
    assert note not in plain["notes"]
    code, _, err = run(*arguments, names["SOME"])
    assert code == 0
    assert note in err


def test_a_mistake_is_found_without_importing_torch(data: Path) -> None:
    code = (
        "import sys\nfrom genrec.cli.main import main\nsys.argv = ['genrec', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(code, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    for arguments in (["--user", "zz"], ["--user", "u", "--where", "prize < 3"],
                      ["--user", "u", "--explain", "--style", "rude", "--include-seen"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code, "recommend", str(data), *arguments],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split()[1:] == ["False", "False"], done.stderr
        assert done.stdout.split()[0] in {"4", "6"}
