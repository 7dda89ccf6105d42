"""Log every answer of an evaluation, so that it resumes after a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrec.data.protocols import Case
from genrec.errors import DataError
from genrec.evaluation.systems import Answer, Progress, System


def answers(
    system: System,
    cases: Sequence[Case],
    k: int,
    *,
    log_path: Path | None = None,
    key: str = "",
    progress: Progress = lambda system, done: None,
) -> list[Answer]:
    """A system's answers, one a case.

    Args:
        system: what answers.
        cases: whom to rank for.
        k: how many items a list.
        log_path: a JSONL file to which each user's answer is appended at once; users that it already
            holds are not ranked again, and a last line cut off by a kill is dropped.
        key: what the answers depend on; a log written under another is refused.
        progress: called with the system's name and the number of users done.

    Raises:
        DataError: the log was written by another system or for other settings.
    """
    known = _read_log(log_path, system.name, key) if log_path else {}
    todo = [case for case in cases if case.user_id not in known]
    progress(system.name, len(cases) - len(todo))
    for first in range(0, len(todo), system.batch):
        part = todo[first : first + system.batch]
        new = system.answers(part, k)
        known.update((case.user_id, answer) for case, answer in zip(part, new, strict=True))
        if log_path:
            lines = [_line(system.name, key, c, a) for c, a in zip(part, new, strict=True)]
            with log_path.open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
        progress(system.name, len(cases) - len(todo) + first + len(part))
    return [known[case.user_id] for case in cases]


_FIELDS = ("items", "probabilities", "nats", "exact", "seconds")


def _line(name: str, key: str, case: Case, answer: Answer) -> str:
    values = {f: getattr(answer, f) for f in _FIELDS if getattr(answer, f) is not None}
    line = {"system": name, "key": key, "user_id": case.user_id, **values}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _read_log(log_path: Path, name: str, key: str) -> dict[str, Answer]:
    done = {}
    for entry in whole_lines(log_path):
        if (entry.get("system"), entry.get("key")) != (name, key):
            msg = (
                f"{log_path} was written for system {entry.get('system')!r} with key "
                f"{entry.get('key')!r}, not {name!r} with {key!r}: other data, protocol, model or "
                "settings. Expected the same run; choose another folder or delete it."
            )
            raise DataError(msg)
        done[entry["user_id"]] = Answer(**{f: entry[f] for f in _FIELDS if f in entry})
    return done


def whole_lines(log_path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file that is appended to; a last line cut off by a kill is dropped.

    Raises:
        DataError: the file holds something else.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if not log_path.exists():
        return []
    try:
        text = log_path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        rest = text[len(whole) :]
        found = [json.loads(line) for line in whole.decode("utf-8").split("\n")[:-1]]
        if all(isinstance(entry, dict) for entry in found) and rest[:1] in {b"", b"{"}:
            if rest:
                log_path.write_bytes(whole)
            return found
        problem = "a line is no object"
    except (OSError, ValueError) as error:
        problem = str(error)
    msg = (
        f"{log_path} is no log of an evaluation: {problem}. Expected one object of JSON a line; choose "
        "another place or delete it."
    )
    raise DataError(msg)
