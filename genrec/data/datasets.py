"""Load bundled datasets by name, and public datasets from folders that the user downloaded.

The loaders download nothing. Each loader reads the files in their published format.
"""

from __future__ import annotations

import ast
import csv
import gzip
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset as Dataset
from genrec.data.events import History
from genrec.data.ingest import EventOptions
from genrec.data.interactions import Interactions
from genrec.data.readers import arrow, huggingface
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError

EMBEDDED = {"online_retail_demo": "csv.gz", "zh_mini": "csv"}


def load(name: str = "online_retail_demo") -> Dataset:
    """Load a dataset that is bundled with the package.

    ``online_retail_demo``: 995 customers, 2,064 products and 55,864 events from UCI Online Retail
    (Chen 2015, https://doi.org/10.24432/C5BW33, CC BY 4.0). ``zh_mini``: 60 users, 240 items and
    955 events in Chinese, invented by the authors for experiments. See their data cards.

    Raises:
        DataError: no bundled dataset has this name.
    """
    if name not in EMBEDDED:
        msg = (
            f"There is no bundled dataset {name!r}. Expected one of: {', '.join(EMBEDDED)}. Use "
            "genrec.Dataset.load(folder) for a folder written by prepare."
        )
        raise DataError(msg)
    folder, ending = Path(__file__).parent / "samples" / name, EMBEDDED[name]
    dataset, _ = Dataset.prepare(
        folder / f"items.{ending}", folder / f"interactions.{ending}", name=name, strict=True
    )
    return dataset


def movielens(folder: str | Path) -> Dataset:
    """Load MovieLens in a format published by GroupLens: ml-100k, ml-1m, ml-10m or ml-latest.

    A title includes the year of the movie. Genres are an attribute, except in ml-100k, which has
    flags instead. All events have the behavior ``rate``, and their value is the number of stars.
    GroupLens forbids redistribution, so download the folder from GroupLens.

    Args:
        folder: the unpacked folder.

    Raises:
        DataError: the folder does not have the layout of any of these formats.
    """
    folder = Path(folder)
    if (folder / "u.data").is_file():
        events = _split_lines(folder / "u.data", "\t", _RATING)
        items = _split_lines(folder / "u.item", "|", ["item_id", "title", "released"])
    elif (folder / "ratings.dat").is_file():
        events = _split_lines(folder / "ratings.dat", "::", _RATING)
        items = _split_lines(folder / "movies.dat", "::", ["item_id", "title", "genres"])
    elif (folder / "ratings.csv").is_file():
        events = _renamed_csv(folder / "ratings.csv", _RATING)
        items = _renamed_csv(folder / "movies.csv", ["item_id", "title", "genres"])
    else:
        msg = (
            f"{str(folder)!r} is not a MovieLens folder. Expected u.data and u.item (ml-100k), "
            "ratings.dat and movies.dat (ml-1m), or ratings.csv and movies.csv (ml-latest)."
        )
        raise DataError(msg)
    return _dataset(items, events, folder.resolve().name, EventOptions(time_unit="s"))


def recbole(folder: str | Path | None = None, name: str = "ml-100k") -> Dataset:
    """Load RecBole atomic files, ``NAME.inter`` and ``NAME.item``.

    Args:
        folder: the folder with the files; None for the sample in an installed recbole package.
        name: the name of the files, without the extension.

    Raises:
        DataError: a file is missing, or has no user column, item column or title column.
    """
    if folder is None:
        spec = importlib.util.find_spec("recbole")
        if spec is None or spec.origin is None:
            msg = "recbole is not installed. Install it, or pass the folder with the .inter file."
            raise DataError(msg)
        folder = Path(spec.origin).parent / "dataset_example" / name
    folder = Path(folder)
    events = _atomic(folder / f"{name}.inter")
    items = _atomic(folder / f"{name}.item")
    if "title" not in items.column_names:
        titles = [c for c in items.column_names if c.endswith(("title", "name"))]
        if not titles:
            msg = (
                f"{name}.item has no title column. Expected one whose name ends in title or name; "
                f"found {', '.join(items.column_names)}."
            )
            raise DataError(msg)
        items = items.rename_columns(["title" if c == titles[0] else c for c in items.column_names])
    return _dataset(items, events, name, EventOptions())


def amazon(reviews: str | Path, metadata: str | Path) -> Dataset:
    """Load Amazon reviews and product titles from 2014, 2018 or 2023.

    In 2014 and 2018, reviews have the columns ``reviewerID, asin, overall, unixReviewTime``, and
    products have ``asin, title``. The products of 2014 are written as Python literals. In 2023,
    reviews have ``user_id, parent_asin, rating, timestamp`` (milliseconds), and products have
    ``parent_asin, title``. All events have the behavior ``rate``, and their text is the review's
    summary or title.

    Args:
        reviews: the reviews file (JSON Lines, optionally gzipped).
        metadata: the products file, in the same format.

    Raises:
        DataError: a file cannot be read or has a different layout.
    """
    events, items = [], []
    for row in _records(Path(reviews)):
        events.append(
            {
                "user_id": row.get("user_id") or row.get("reviewerID"),
                "item_id": row.get("parent_asin") or row.get("asin"),
                "rating": row.get("rating", row.get("overall")),
                "timestamp": row.get("timestamp", row.get("unixReviewTime")),
                "text": row.get("summary") or (row.get("title") if "rating" in row else None),
            }
        )
    for row in _records(Path(metadata)):
        item_id = row.get("parent_asin") or row.get("asin")
        brand = row.get("brand") or row.get("store")
        items.append({"item_id": item_id, "title": row.get("title"), "brand": brand})
    if not any(e["user_id"] and e["item_id"] for e in events):
        msg = (
            f"{str(reviews)!r} has neither the columns reviewerID and asin (2014, 2018) nor user_id "
            "and parent_asin (2023). Expected one of these layouts."
        )
        raise DataError(msg)
    return _dataset(_table(items), _table(events), Path(reviews).name.split(".")[0], EventOptions())


def histories(
    data: Any, catalog: Catalog, split: str | None = None, **options: Any
) -> list[History]:
    """Read histories from a Hugging Face dataset with one row per user and lists of events.

    The column ``item_id`` or ``title`` holds lists, oldest first. Behavior, timestamp, value and
    text may be lists of the same length, or a single value for all events. A title refers to the
    first catalog item with that title. Pass the histories to ``Recommender.recommend_many`` to get
    recommendations.

    Args:
        data: a ``datasets.Dataset``, or the id of a dataset on the hub.
        catalog: the items.
        split: the part of the dataset to read; see ``genrec.data.readers.huggingface.read``.
        **options: ``rejects`` and the fields of ``EventOptions``, such as
            ``columns={"item_id": "history"}``, or ``behavior="buy"`` if there is no behavior
            column.

    Returns:
        One history per user, in the order of the dataset.

    Raises:
        DataError: the dataset cannot be loaded, a row is bad, or no row is usable.
    """
    rejects = options.pop("rejects", None) or Rejects(
        huggingface.display_name(data, "histories"), strict=True
    )
    columns = options.pop("columns", {})
    table = arrow.explode(
        arrow.rename(huggingface.read(data, split), columns, rejects.source), rejects
    )
    if "item_id" not in table.column_names:
        arrow.require_columns(table, ["title"], rejects.source)
        matches = [(t, catalog.rows_of_title(t)[0]) for t in arrow.to_strings(table["title"])]
        ids = [catalog[rows[0]].item_id if rows else title for title, rows in matches]
        table = table.append_column("item_id", pa.array(ids, pa.string()))
    events = Interactions.from_table(table, catalog, rejects=rejects, **options)
    return [events.history(user) for user in events.user_ids]


_RATING = ["user_id", "item_id", "rating", "timestamp"]


def _dataset(items: pa.Table, events: pa.Table, name: str, options: EventOptions) -> Dataset:
    """Build a dataset from tables, rejecting bad rows."""
    rejects = [Rejects("items"), Rejects("interactions")]
    return Dataset.from_tables(items, events, name=name, options=options, rejects=rejects)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Build a table of strings from rows with the same keys."""
    names = list(rows[0]) if rows else ["item_id", "title"]
    return pa.table(
        {
            n: pa.array([None if r[n] is None else str(r[n]) for r in rows], pa.string())
            for n in names
        }
    )


def _read_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a text file, which may be gzipped."""
    if not path.is_file():
        msg = f"{str(path)!r} does not exist. Expected the publisher's file at this path."
        raise DataError(msg)
    opener: Callable[..., Any] = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding=encoding, errors="replace", newline="") as stream:
            yield from stream
    except (OSError, EOFError) as error:
        msg = f"{str(path)!r} cannot be read: {error}. Download the file again."
        raise DataError(msg) from error


def _split_lines(path: Path, separator: str, names: list[str]) -> pa.Table:
    """Read a Latin-1 text file published by GroupLens, splitting its columns at a separator."""
    rows = [line.rstrip("\r\n").split(separator) for line in _read_lines(path, "latin-1")]
    return _table([dict(zip(names, [*r, *[None] * len(names)], strict=False)) for r in rows])


def _renamed_csv(path: Path, names: list[str]) -> pa.Table:
    """Read a CSV file, replacing its header with genrec's column names."""
    reader = csv.reader(_read_lines(path, "utf-8"))
    next(reader, None)
    return _table([dict(zip(names, [*r, *[None] * len(names)], strict=False)) for r in reader])


def _atomic(path: Path) -> pa.Table:
    """Read a RecBole atomic file, which is tab-separated and has a type after each column name."""
    lines = _read_lines(path, "utf-8")
    names = [n.split(":")[0] for n in next(lines, "").rstrip("\r\n").split("\t")]
    for needed in ("item_id",):
        if needed not in names:
            msg = (
                f"{str(path)!r} has no column {needed}:token. Expected a RecBole atomic file; found "
                f"the columns {', '.join(names)}."
            )
            raise DataError(msg)
    rows = [line.rstrip("\r\n").split("\t") for line in lines]
    return _table([dict(zip(names, [*r, *[None] * len(names)], strict=False)) for r in rows])


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the object on each line, written as JSON or, in data from 2014, as a Python literal.

    Raises:
        DataError: a line is not an object in either format.
    """
    for number, line in enumerate(_read_lines(path, "utf-8"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            try:
                row = ast.literal_eval(line.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                row = None
        if not isinstance(row, dict):
            msg = f"{str(path)!r}, line {number} is not a JSON object. Fix the line or remove it."
            raise DataError(msg)
        yield row
