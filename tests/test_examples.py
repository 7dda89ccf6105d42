"""Run the examples as they stand, with the real model."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Run

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


@pytest.mark.model
@pytest.mark.slow
def test_profile_candidates_rank(capsys: pytest.CaptureFixture[str]) -> None:
    name = "06_profile_candidates_rank.py"
    text = output(name, capsys, "--candidates", "8", "--threads", "1")
    assert text.splitlines()[0].startswith("Typical of this customer's 56 events: bag (24)")
    assert "8 candidates by counting" in text
    assert "Earlier interests: bag" in text
    assert "SPACEBOY" not in text
    assert text.splitlines()[-1].startswith("5. ")


@pytest.mark.model
@pytest.mark.slow
def test_explain_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    """Compare with the output in examples/README.md, apart from numbers and what depends on them."""
    text = output("10_explain_and_check.py", capsys)
    written = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ python examples/10_.*?\n(.*?)^```", written, flags=re.S | re.M)[0]
    for here in ("evidence for ", "the strongest: ", "the latest: ", "why not CUPCAKE LACE"):
        assert here in text
        assert here in shown
    assert "rejected: " in text
    assert len(text.splitlines()) >= 15


@pytest.mark.model
@pytest.mark.slow
def test_buy_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("05_buy_or_not.py", capsys, "--minutes", "0", "--customers", "1")
    for name in ("zero-shot log loss", "tuned     log loss", "trained on"):
        assert name in text


def transcript(path: Path, run: Run) -> str:
    """Return a Markdown file with each command followed by what it prints now."""
    lines: list[str] = []
    document = iter(path.read_text(encoding="utf-8").splitlines())
    inside = False
    for line in document:
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and not line.startswith("$ "):
            continue  # what the file says was printed
        lines.append(line)
        if not inside or not line.startswith("$ "):
            continue
        name, *arguments = shlex.split(line[2:])
        if name == "cat" and ">" in arguments:
            text = list(iter(lambda: next(document), "END"))
            Path(arguments[1]).write_text("\n".join(text) + "\n", encoding="utf-8")
            lines += [*text, "END"]
        elif name == "cat":
            lines += Path(arguments[0]).read_text(encoding="utf-8").splitlines()
        else:
            code, out, err = run(*arguments)
            assert code == 0, (line, err)
            lines += [*out.splitlines(), *err.splitlines()]
    return "\n".join(lines) + "\n"


@pytest.mark.model
@pytest.mark.parametrize("language", ["", ".zh"])
def test_csv_to_recommendations(
    language: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set GENREC_UPDATE=1 to write the outputs; numbers may differ between machines."""
    path = EXAMPLES / f"02_csv_to_recommendations{language}.md"
    monkeypatch.chdir(tmp_path)
    now = transcript(path, run)
    if os.environ.get("GENREC_UPDATE"):
        path.write_text(now, encoding="utf-8")
    written = path.read_text(encoding="utf-8")
    assert re.sub(r"\d+", "#", now) == re.sub(r"\d+", "#", written)
    assert len(re.sub(r"^```console.*?^```", "", written, flags=re.S | re.M).splitlines()) <= 30


@pytest.mark.model
def test_context(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set GENREC_UPDATE=1 to write the outputs; numbers may differ between machines."""
    path = EXAMPLES / "07_context.md"
    monkeypatch.chdir(tmp_path)
    now = transcript(path, run)
    if os.environ.get("GENREC_UPDATE"):
        path.write_text(now, encoding="utf-8")
    written = path.read_text(encoding="utf-8")
    assert re.sub(r"\d+", "#", now) == re.sub(r"\d+", "#", written)
    assert len(written.splitlines()) <= 60


@pytest.mark.model
@pytest.mark.slow
def test_serve_and_learn(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("12_serve_and_learn.py", capsys, "60")
    for here in ("best ", "random ", "random minus best", "IPS", "SNIPS"):
        assert here in text
    assert sum(int(n) for n in re.findall(r"of (\d+) customers", text)) == 60


@pytest.mark.slow
def test_llm_features(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(
        "08_llm_features_lstm.py", capsys, "--users", "20", "--epochs", "1", "--encoder", "ngrams"
    )
    assert "textseq" in text
    assert "popular" in text


@pytest.mark.model
@pytest.mark.slow
def test_fine_tune(tmp_path: Path) -> None:
    few = {
        "REPLAY": "1",
        "TARGETS": "60",
        "USERS": "2",
        "TUNE": "10",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", str(EXAMPLES / "04_fine_tune.sh"), str(tmp_path / "out")],
        env={**os.environ, **few}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 users" in done.stdout
    assert "3 new events" in done.stdout
    assert done.stdout.count("GLASS VASE") >= 2  # score names both, trained on or not


@pytest.mark.model
def test_chat(capsys: pytest.CaptureFixture[str]) -> None:
    """Compare with the output in examples/README.md, apart from the probabilities."""
    lines = [re.sub(r"  \d\.\d+$", "", line) for line in output("13_chat.py", capsys).splitlines()]
    written = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ python examples/13_.*?\n(.*?)^```", written, flags=re.S | re.M)[0]
    assert lines == [re.sub(r"  \d\.\d+$", "", line) for line in shown.splitlines()]


@pytest.mark.model
@pytest.mark.slow
def test_five_domains(capsys: pytest.CaptureFixture[str]) -> None:
    text = output("09_five_domains.py", capsys, "--threads", "1")
    parts = text.split("== ")[1:]
    assert [p.split()[0] for p in parts] == ["shop", "news", "films", "music", "social"]
    for part in parts:
        assert re.findall(r"^  (\d)\. .+  0\.\d{3}$", part, re.MULTILINE)[:3] == ["1", "2", "3"]
        assert part.splitlines()[-1].endswith(".")  # the reason
    assert "Railway along the coast opens again" in parts[1]
