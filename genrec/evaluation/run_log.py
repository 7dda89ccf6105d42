"""Log the answers in an evaluation as they are computed, so that a run can be resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrec.data.protocols import Case
from genrec.errors import DataError
from genrec.evaluation.systems import Answer, Progress, System, slug
from genrec.files import append_text

# The last version in which a system's answers changed under the same settings; part of each log's key.
# Raise it when answers change, so that a log never mixes old and new answers. Do not raise it otherwise.
ANSWERS_VERSION = "0.1.0"


def collect_answers(
    system: System,
    cases: Sequence[Case],
    k: int,
    *,
    log_path: Path | None = None,
    key: str = "",
    progress: Progress = lambda system, done: None,
) -> list[Answer]:
    """Collect a system's answers to all cases, and log each of them.

    Args:
        system: the system to ask.
        cases: the cases to answer.
        k: the number of items in each list.
        log_path: a JSONL file to which each answer is appended immediately. Users already in the
            file are skipped, and an incomplete last line is dropped. If None, nothing is logged.
        key: a string that identifies everything that the answers depend on. A log with a different
            key is rejected.
        progress: a function that is called with the name of the system and the number of users that
            have been processed.

    Raises:
        DataError: the log was written by another system or with other settings.
    """
    names = (system.name, *system.former_names)
    known = _read_log(log_path, names, key) if log_path else {}
    todo = [case for case in cases if case.user_id not in known]
    progress(system.name, len(cases) - len(todo))
    for first in range(0, len(todo), system.batch):
        part = todo[first : first + system.batch]
        new = system.answers(part, k)
        known.update((case.user_id, answer) for case, answer in zip(part, new, strict=True))
        if log_path:
            lines = [_line(system.name, key, c, a) for c, a in zip(part, new, strict=True)]
            append_text(log_path, "".join(lines))
        progress(system.name, len(cases) - len(todo) + first + len(part))
    return [known[case.user_id] for case in cases]


def find_log(folder: Path, system: System, key: str) -> Path:
    """Return the path of a system's log in a folder of results.

    If there is no log under the current name, a log that an earlier version wrote under one of the
    system's former names is used, provided that it has the same key.
    """
    log_path = folder / f"{slug(system.name)}.jsonl"
    for name in system.former_names:
        former = folder / f"{slug(name)}.jsonl"
        if not log_path.exists() and former.is_file():
            entries = read_whole_lines(former)
            if entries and {(e.get("system"), e.get("key")) for e in entries} == {(name, key)}:
                return former
    return log_path


_FIELDS = ("items", "probabilities", "nats", "exact", "seconds")


def _line(name: str, key: str, case: Case, answer: Answer) -> str:
    values = {f: getattr(answer, f) for f in _FIELDS if getattr(answer, f) is not None}
    line = {"system": name, "key": key, "user_id": case.user_id, **values}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _read_log(log_path: Path, names: Sequence[str], key: str) -> dict[str, Answer]:
    done = {}
    for entry in read_whole_lines(log_path):
        if entry.get("system") not in names or entry.get("key") != key:
            msg = (
                f"{log_path} was written for system {entry.get('system')!r} with key "
                f"{entry.get('key')!r}, not for {names[0]!r} with key {key!r}, so the data, protocol, model "
                "or settings differ. Expected a log of the same run. Choose another folder, or delete "
                "the log."
            )
            raise DataError(msg)
        done[entry["user_id"]] = Answer(**{f: entry[f] for f in _FIELDS if f in entry})
    return done


def read_whole_lines(log_path: Path) -> list[dict[str, Any]]:
    """Read a JSONL log, and remove an incomplete last line from the file.

    Returns:
        The JSON object on each line; an empty list if the file does not exist.

    Raises:
        DataError: the file is not a JSONL log.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if not log_path.exists():
        return []
    try:
        text = log_path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        rest = text[len(whole) :]
        entries = [json.loads(line) for line in whole.decode("utf-8").split("\n")[:-1]]
        if all(isinstance(entry, dict) for entry in entries) and rest[:1] in {b"", b"{"}:
            if rest:
                log_path.write_bytes(whole)
            return entries
        problem = "a line is not a JSON object"
    except (OSError, ValueError) as error:
        problem = str(error)
    msg = (
        f"{log_path} is not a log of an evaluation: {problem}. Expected one JSON object per line. "
        "Choose another path, or delete the file."
    )
    raise DataError(msg)
