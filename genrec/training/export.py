"""Training examples as files: one prompt and one title a row, written and read back.

Knows texts and rows of trees, nothing of models. What is written is what ``datasets.load_dataset``
and other trainers read; a file, edited or not, can be trained on in place of the histories.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec import files
from genrec.data.catalog import Catalog
from genrec.data.interactions import Interactions
from genrec.errors import DataError, SettingsError
from genrec.prompts.encoder import Encoder
from genrec.training.sequences import Row, RowMaker
from genrec.training.title_paths import TitlePaths
from genrec.types import BoolArray

FORMATS = ("prompt-completion", "messages")
ENDINGS = (".jsonl", ".parquet")
Example = dict[str, Any]


def check_output(path: str | Path, form: str) -> None:
    """Whether such a file can be written; raises as ``write``."""
    if form not in FORMATS:
        msg = f"format={form!r} is not known. Expected one of: {', '.join(FORMATS)}, pointwise."
        raise SettingsError(msg)
    check_ending(path)


def check_ending(path: str | Path) -> None:
    """Whether a file's name says which format it has; raises as ``write``."""
    if Path(path).suffix not in ENDINGS:
        msg = f"out={str(path)!r}. Expected a file name that ends with {' or '.join(ENDINGS)}."
        raise SettingsError(msg)


def make_examples(
    maker: RowMaker,
    encoder: Encoder,
    events: Interactions,
    shown: BoolArray,
    wanted: BoolArray,
    form: str,
) -> Iterator[Example]:
    """One example for each target of each user.

    Args:
        maker: makes the prompts.
        encoder: of the model, whose title form is written.
        events: of all users.
        shown: (E,) which events histories show.
        wanted: (E,) which of these are targets.
        form: one of ``FORMATS``.
    """
    catalog = events.catalog
    for user in events.user_ids:
        where = events.events(user)
        places = where.start + np.flatnonzero(shown[where])
        for prompt, row, _ in maker.prompts(user, places, wanted[places]) if len(places) else ():
            title = encoder.form.render(catalog[row].title)
            about = {"user_id": user, "item_id": catalog[row].item_id}
            if form == "messages":
                said = [("user", prompt.prompt.text), ("assistant", title)]
                yield {"messages": [{"role": r, "content": c} for r, c in said], **about}
            else:
                answer = f"{encoder.form.lead}{title}{encoder.form.terminator}"
                yield {"prompt": prompt.text, "completion": answer, **about}


def write(path: str | Path, found: Iterator[Example]) -> int:
    """Writes examples beside their place first, then into it; how many there were."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(list(found))
        files.write_file(path, partial(pq.write_table, table))
        return int(table.num_rows)
    lines = [json.dumps(e, ensure_ascii=False) for e in found]
    files.write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read(path: str | Path) -> list[Example]:
    """The examples of a JSON Lines or Parquet file.

    Raises:
        DataError: the file cannot be read, or a row is neither of ``FORMATS``; the message says which.
    """
    path = Path(path)
    found: list[Example]
    try:
        if path.suffix == ".parquet":
            found = pq.read_table(path).to_pylist()
        else:
            text = path.read_text(encoding="utf-8")
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, pa.ArrowException) as error:
        msg = f"{path} cannot be read: {error}. Expected JSON Lines or Parquet."
        raise DataError(msg) from error
    for number, row in enumerate(found, start=1):
        if problem := _problem(row):
            msg = (
                f"{path}, row {number}: {problem}. Expected {{'prompt': text, 'completion': title}}, "
                "or {'messages': [a user's, an assistant's]}, as `genrec examples` writes them."
            )
            raise DataError(msg)
    if not found:
        msg = f"{path} holds no examples. Expected some; `genrec examples` writes them."
        raise DataError(msg)
    return found


def _problem(row: object) -> str:
    if not isinstance(row, dict):
        return f"it is {type(row).__name__}"
    try:
        prompt, completion = _pair(row)
    except (KeyError, TypeError, ValueError, IndexError):
        return f"it has the columns {', '.join(map(str, row))}"
    if not (isinstance(prompt, str) and isinstance(completion, str) and completion.strip()):
        return "prompt or completion is no text, or the completion is empty"
    return ""


def _pair(row: Mapping[str, Any]) -> tuple[Any, Any]:
    if "messages" in row:
        user, assistant = row["messages"]
        if (user["role"], assistant["role"]) != ("user", "assistant"):
            raise ValueError
        return user["content"], assistant["content"]
    return row["prompt"], row["completion"]


def read_rows(
    found: Sequence[Example],
    encoder: Encoder,
    catalog: Catalog,
    paths: TitlePaths,
    most: int,
    *,
    whole_titles: bool = True,
) -> tuple[list[Row], dict[str, int]]:
    """Examples as rows to train on; prompts are tokenised as one text each.

    Args:
        found: of ``read``.
        encoder: of the model.
        catalog: whose titles the completions are.
        paths: of its trie.
        most: tokens that a row may have.
        whole_titles: as of ``RowMaker``.

    Returns:
        The rows, and how many examples were left out, by reason.

    Raises:
        DataError: none is left.
    """
    where: dict[str, int] = {}
    for row, title in enumerate(catalog.titles):
        where.setdefault(encoder.form.render(title), row)
    made: list[Row] = []
    rejected: dict[str, int] = {}
    for example in found:
        prompt, completion = _pair(example)
        item = where.get(encoder.form.render(completion), -1)
        ids = encoder.message(prompt) if "messages" in example else encoder.plain(prompt)
        answer = encoder.title(encoder.form.render(completion))
        reason = "" if ids else "the prompt is empty"
        if item < 0 or not paths.copies[item]:
            reason = "the completion is no title of the catalog"
        elif len(ids) + len(answer) > most:
            reason = f"more than {most} tokens (pack_tokens)"
        if reason:
            rejected[reason] = rejected.get(reason, 0) + 1
            continue
        read = len(answer) if whole_titles else int(paths.needed[item])
        made.append(_row([*ids, *answer[:read]], len(ids), item))
    if not made:
        msg = f"No example can be used: {rejected}. Expected completions that are titles."
        raise DataError(msg)
    return made, rejected


def _row(ids: Sequence[int], n: int, item: int) -> Row:
    places = np.arange(len(ids))
    return Row(
        np.array(ids),
        places,
        places + 1,
        np.zeros(len(ids), dtype=np.int64),
        np.array([n - 1]),
        np.array([n]),
        np.array([item]),
        np.array([-1]),
    )
