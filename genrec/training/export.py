"""Write training examples to a file, and read them from a file.

Each example consists of a prompt and the title that should follow it. The files can be edited, and
a model can be trained on such a file instead of the histories. ``datasets.load_dataset`` and other
training programs can read them, too. This module deals with texts and training rows, not with
models.
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
    """Check that examples can be written in the given format to a file with this extension.

    Raises:
        SettingsError: the format or the file extension is unknown, or the file cannot be written.
    """
    if form not in FORMATS:
        msg = f"Unknown value format={form!r}. Expected one of: {', '.join(FORMATS)}, pointwise."
        raise SettingsError(msg)
    check_file(path)


def check_file(path: str | Path) -> None:
    """Check that a file has one of the extensions in ``ENDINGS`` and can be written.

    Raises:
        SettingsError: the file has a different extension, or cannot be written.
    """
    if Path(path).suffix not in ENDINGS:
        endings = " or ".join(ENDINGS)
        msg = (
            f"out={str(path)!r} has an unknown extension. Expected a file name ending in {endings}."
        )
        raise SettingsError(msg)
    files.check_output(path)


def make_examples(
    maker: RowMaker,
    encoder: Encoder,
    events: Interactions,
    shown: BoolArray,
    wanted: BoolArray,
    form: str,
) -> Iterator[Example]:
    """Yield one example for each of the E events that is a target.

    Args:
        maker: the object that renders the prompts.
        encoder: the encoder, which formats titles as the model sees them.
        events: the events of all users.
        shown: (E,) mask of the events that appear in histories.
        wanted: (E,) mask of the events that are targets.
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


def write(path: str | Path, examples: Iterator[Example]) -> int:
    """Write examples to a JSON Lines or Parquet file atomically, and return their number."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(list(examples))
        files.write_file(path, partial(pq.write_table, table))
        return int(table.num_rows)
    lines = [json.dumps(e, ensure_ascii=False) for e in examples]
    files.write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read(path: str | Path) -> list[Example]:
    """Read the examples from a JSON Lines or Parquet file.

    Raises:
        DataError: the file cannot be read or contains no examples, or a row does not have one of
            the formats in ``FORMATS``. The message gives the row number.
    """
    path = Path(path)
    examples: list[Example]
    try:
        if path.suffix == ".parquet":
            examples = pq.read_table(path).to_pylist()
        else:
            text = path.read_text(encoding="utf-8")
            examples = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, pa.ArrowException) as error:
        msg = f"Cannot read {path}: {error}. Expected JSON Lines or Parquet."
        raise DataError(msg) from error
    for number, row in enumerate(examples, start=1):
        if problem := _find_problem(row):
            msg = (
                f"{path}, row {number}: {problem}. Expected {{'prompt': text, 'completion': title}} "
                "or {'messages': [a user's message, an assistant's message]}, as written by "
                "`genrec examples`."
            )
            raise DataError(msg)
    if not examples:
        msg = f"{path} contains no examples. Expected a file as written by `genrec examples`."
        raise DataError(msg)
    return examples


def _find_problem(row: object) -> str:
    """Describe what is wrong with a row of a file, or return an empty string if it is valid."""
    if not isinstance(row, dict):
        return f"the row is a {type(row).__name__}, not an object"
    try:
        prompt, completion = _split_example(row)
    except (KeyError, TypeError, ValueError, IndexError):
        return f"the row has the columns {', '.join(map(str, row))}"
    if not (isinstance(prompt, str) and isinstance(completion, str) and completion.strip()):
        return "the prompt or the completion is not a string, or the completion is empty"
    return ""


def _split_example(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the prompt and the completion of an example in any format.

    Raises:
        KeyError, TypeError, ValueError or IndexError: the example does not have a known format.
    """
    if "messages" in row:
        user, assistant = row["messages"]
        if (user["role"], assistant["role"]) != ("user", "assistant"):
            raise ValueError
        return user["content"], assistant["content"]
    return row["prompt"], row["completion"]


def read_rows(
    examples: Sequence[Example],
    encoder: Encoder,
    catalog: Catalog,
    paths: TitlePaths,
    most: int,
    *,
    whole_titles: bool = True,
) -> tuple[list[Row], dict[str, int]]:
    """Turn examples into training rows. Each prompt is tokenized as a single text.

    Args:
        examples: the examples as read from a file.
        encoder: the encoder, which tokenizes prompts and titles.
        catalog: the catalog that contains the items named by the completions.
        paths: the paths to all titles in the trie. Items without a path cannot be targets.
        most: the maximum number of tokens in a row.
        whole_titles: see ``RowOptions``.

    Returns:
        The rows, and a mapping from each reason for skipping examples to the number of examples.

    Raises:
        DataError: no example can be used.
    """
    where: dict[str, int] = {}
    for row, title in enumerate(catalog.titles):
        where.setdefault(encoder.form.render(title), row)
    made: list[Row] = []
    rejected: dict[str, int] = {}
    for example in examples:
        prompt, completion = _split_example(example)
        item = where.get(encoder.form.render(completion), -1)
        ids = encoder.message(prompt) if "messages" in example else encoder.plain(prompt)
        answer = encoder.title(encoder.form.render(completion))
        reason = "" if ids else "the prompt is empty"
        if item < 0 or not paths.copies[item]:
            reason = "the completion is not a title in the catalog"
        elif len(ids) + len(answer) > most:
            reason = f"the example has more than {most} tokens (pack_tokens)"
        if reason:
            rejected[reason] = rejected.get(reason, 0) + 1
            continue
        read = len(answer) if whole_titles else int(paths.needed[item])
        made.append(_make_row([*ids, *answer[:read]], len(ids), item))
    if not made:
        counts = "; ".join(f"{n:,} examples: {reason}" for reason, n in rejected.items())
        msg = f"No example can be used ({counts}). Expected completions that are catalog titles."
        raise DataError(msg)
    return made, rejected


def _make_row(ids: Sequence[int], n: int, item: int) -> Row:
    """Create a training row with one target from a prompt and a title.

    Args:
        ids: the token ids of the prompt, followed by the title's token ids.
        n: the number of prompt tokens, which is the index of the title's first token.
        item: the catalog row of the target.
    """
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
