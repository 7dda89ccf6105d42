"""Measure how much personal data the redaction finds, and what it replaces by mistake.

Run ``python -m benchmarks.accuracy.redaction``. ``redaction/texts.txt`` has the texts with which the
rules were developed, and ``redaction/held_out.txt`` those that were kept apart until the end. A mark
such as ``[[email|a@example.com]]`` shows what must be replaced. It counts as found if none of its
letters and digits is left, whatever it was taken for. A false alarm is a text without marks that was
changed. ``--verbose`` lists every mistake.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from genrec.data.redaction import Redactor

FOLDER = Path(__file__).parent / "redaction"
_MARK = re.compile(r"\[\[(\w+)\|(.*?)\]\]")


@dataclass
class Outcome:
    """What the redaction did to the texts of one file.

    Attributes:
        listed, found: the number of marked pieces of each kind, and of those that were replaced.
        kinds: the number of found pieces whose kind was right.
        clean, alarms: the number of texts without marks, and those of them that were changed.
        excess: the number of texts with marks in which more was replaced than marked.
        mistakes: a line for each mistake.
    """

    listed: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    kinds: int = 0
    clean: int = 0
    alarms: int = 0
    excess: int = 0
    mistakes: list[str] = field(default_factory=list)


def read_marked(line: str) -> tuple[str, list[tuple[int, int, str]]]:
    """Return a text without its marks, and the start, end and kind of each marked piece."""
    text, spans, done = "", [], 0
    for match in _MARK.finditer(line):
        text += line[done : match.start()]
        spans.append((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        done = match.end()
    return text + line[done:], spans


def measure(path: Path) -> Outcome:
    """Apply the redaction to the texts of a file, and compare the result with the marks."""
    outcome, redactor = Outcome(), Redactor()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        text, spans = read_marked(line)
        found = redactor.find(text)
        covered = {i for start, end, _ in found for i in range(start, end)}
        marked = {i for start, end, _ in spans for i in range(start, end)}
        if not spans:
            outcome.clean += 1
            outcome.alarms += bool(found)
            outcome.mistakes += [f"false alarm: {text}  {found}"] if found else []
        elif any(text[i].isalnum() for i in covered - marked):
            outcome.excess += 1
            outcome.mistakes.append(f"more than marked: {text}  {found}")
        for start, end, kind in spans:
            outcome.listed[kind] += 1
            if all(i in covered for i in range(start, end) if text[i].isalnum()):
                outcome.found[kind] += 1
                outcome.kinds += any(k == kind and s < end and e > start for s, e, k in found)
            else:
                outcome.mistakes.append(f"missed: {text}  {found}")
    return outcome


def main() -> None:
    """Print the figures of both files."""
    for name in ("texts.txt", "held_out.txt"):
        o = measure(FOLDER / name)
        listed, found = o.listed.total(), o.found.total()
        each = ", ".join(f"{k} {o.found[k]}/{n}" for k, n in o.listed.items())
        print(
            f"{name}: found {found}/{listed} = {found / listed:.3f} ({each}); right kind {o.kinds}; "
            f"false alarms {o.alarms}/{o.clean} = {o.alarms / o.clean:.3f}; more than marked in {o.excess} texts"
        )
        if "--verbose" in sys.argv:
            print("\n".join(o.mistakes))


if __name__ == "__main__":
    main()
