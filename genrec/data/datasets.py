"""Load bundled datasets by name, and public datasets from folders that the user downloaded.

The loaders download nothing. Each loader reads the files in their published format.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genrec.cache import find_user_folder
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset as Dataset
from genrec.data.events import History
from genrec.data.ingest import EventOptions
from genrec.data.interactions import Interactions
from genrec.data.readers import (
    arrow,
    delimited,
    encodings,
    files,
    huggingface,
    json_files,
    sources,
)
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
            "genrec.Dataset.load(folder) to load a folder written by `genrec prepare`."
        )
        raise DataError(msg)
    folder, ending = Path(__file__).parent / "samples" / name, EMBEDDED[name]
    dataset, _ = Dataset.prepare(
        folder / f"items.{ending}", folder / f"interactions.{ending}", name=name, strict=True
    )
    own = find_user_folder()  # the package's folder may be read-only
    return replace(dataset, cache_folder=None if own is None else own / "data" / name)


def movielens(folder: str | Path) -> Dataset:
    """Load MovieLens in a format published by GroupLens: ml-100k, ml-1m, ml-10m or ml-latest.

    A title includes the year of the movie. Genres are an attribute, except in ml-100k, which has
    flags instead. All events have the behavior ``rate``, and their value is the number of stars.
    Titles are read as UTF-8 if the file is valid UTF-8, and as Latin-1 otherwise. GroupLens forbids
    redistribution, so download the folder from GroupLens.

    Args:
        folder: the unpacked folder.

    Raises:
        DataError: the folder does not have the layout of any of these formats.
    """
    folder = Path(folder)
    if (folder / "u.data").is_file():
        names = ("u.item", "u.data")
        items = _split_lines(folder / names[0], "|", ["item_id", "title", "released"])
        events = _split_lines(folder / names[1], "\t", _RATING)
    elif (folder / "ratings.dat").is_file():
        names = ("movies.dat", "ratings.dat")
        items = _split_lines(folder / names[0], "::", ["item_id", "title", "genres"])
        events = _split_lines(folder / names[1], "::", _RATING)
    elif (folder / "ratings.csv").is_file():
        names = ("movies.csv", "ratings.csv")
        items = _csv(folder / names[0], {"item_id": "movieId"})
        events = _csv(folder / names[1], {"user_id": "userId", "item_id": "movieId"})
    else:
        msg = (
            f"{str(folder)!r} is not a MovieLens folder. Expected u.data and u.item (ml-100k), "
            "ratings.dat and movies.dat (ml-1m, ml-10m), or ratings.csv and movies.csv (ml-latest)."
        )
        raise DataError(msg)
    return _dataset(items, events, folder.resolve().name, EventOptions(time_unit="s"))


def recbole(
    folder: str | Path | None = None,
    name: str = "ml-100k",
    *,
    options: EventOptions | None = None,
) -> Dataset:
    """Load RecBole atomic files, ``NAME.inter`` and ``NAME.item``.

    Args:
        folder: the folder with the files; None for the sample in an installed recbole package.
        name: the name of the files, without the extension.
        options: column names, units and defaults of the interactions, such as
            ``EventOptions(columns={"timestamp": "date"}, behavior="buy")``. Columns are named as in
            the files, but without the type after the colon.

    Raises:
        DataError: a file is missing, or lacks a user, item, time or title column.
    """
    if folder is None:
        spec = importlib.util.find_spec("recbole")
        if spec is None or spec.origin is None:
            msg = "recbole is not installed. Install it, or pass the folder with the .inter file."
            raise DataError(msg)
        folder = Path(spec.origin).parent / "dataset_example" / name
    folder = Path(folder)
    options = options or EventOptions()
    items, bad_items = _atomic(folder / f"{name}.item", ["item_id"], {})
    events, bad_events = _atomic(
        folder / f"{name}.inter", ["user_id", "item_id", "timestamp"], options.columns
    )
    if "title" not in items.column_names:
        titles = [c for c in items.column_names if c.endswith(("title", "name"))]
        if not titles:
            msg = (
                f"{name}.item has no title column. Expected one whose name ends in title or name; "
                f"found {', '.join(arrow.column_names(items))}."
            )
            raise DataError(msg)
        items = arrow.rename(items, {"title": titles[0]}, bad_items.source)
    return _dataset((items, bad_items), (events, bad_events), name, options)


def amazon(reviews: str | Path, metadata: str | Path) -> Dataset:
    """Load Amazon reviews and product titles in the format of 2014, 2018 or 2023.

    In 2014 and 2018, reviews have the columns ``reviewerID, asin, overall, unixReviewTime``, and
    products have ``asin, title``. The products of 2014 are written as Python literals. In 2023,
    reviews have ``user_id, parent_asin, rating, timestamp`` (milliseconds), and products have
    ``parent_asin, title``. All events have the behavior ``rate``, and their text is the review's
    summary or title. Lines that cannot be parsed are counted in the dataset's ``info.rejected``.

    Args:
        reviews: the reviews file (JSON Lines, optionally gzipped).
        metadata: the products file, in the same format.

    Raises:
        DataError: a file cannot be read or has a different layout.
    """
    events, bad_events = _records(
        Path(reviews),
        lambda row: {
            "user_id": row.get("user_id") or row.get("reviewerID"),
            "item_id": row.get("parent_asin") or row.get("asin"),
            "rating": row.get("rating", row.get("overall")),
            "timestamp": row.get("timestamp", row.get("unixReviewTime")),
            "text": row.get("summary") or (row.get("title") if "rating" in row else None),
        },
    )
    items, bad_items = _records(
        Path(metadata),
        lambda row: {
            "item_id": row.get("parent_asin") or row.get("asin"),
            "title": row.get("title"),
            "brand": row.get("brand") or row.get("store"),
        },
    )
    known = pc.and_(pc.is_valid(events["user_id"]), pc.is_valid(events["item_id"]))
    if not pc.any(known).as_py():
        msg = (
            f"{str(reviews)!r} has neither the columns reviewerID and asin (2014, 2018) nor user_id "
            f"and parent_asin (2023){bad_events.first_reason()}. Expected one of these layouts."
        )
        raise DataError(msg)
    return _dataset(
        (items, bad_items), (events, bad_events), Path(reviews).name.split(".")[0], EventOptions()
    )


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

_Read = tuple[pa.Table, Rejects]  # a table, and the record of the rows that could not be parsed


def _dataset(items: _Read, events: _Read, name: str, options: EventOptions) -> Dataset:
    """Build a dataset from tables, rejecting bad rows."""
    rejects = [items[1], events[1]]
    return Dataset.from_tables(items[0], events[0], name=name, options=options, rejects=rejects)


def _check_exists(path: Path) -> None:
    """Raise a DataError if a file does not exist."""
    if not path.is_file():
        msg = f"{str(path)!r} does not exist. Expected the publisher's file at this path."
        raise DataError(msg)


def _csv(path: Path, columns: dict[str, str]) -> _Read:
    """Read a CSV file, renaming some of its columns to genrec's names."""
    _check_exists(path)
    rejects = Rejects(path.name)
    return arrow.rename(files.read(path, rejects=rejects), columns, path.name), rejects


def _split_lines(path: Path, separator: str, names: Sequence[str]) -> _Read:
    """Read a file from GroupLens that has no header, in UTF-8 or Latin-1.

    Args:
        path: the file.
        separator: the text between cells.
        names: the names of the first columns; any further columns, as in u.item, are ignored.
    """
    _check_exists(path)
    rejects = Rejects(path.name)
    with files.readable(path):
        opener = sources.find(path).open
        encoding = "utf-8" if encodings.detect(opener).name == "utf-8" else "latin-1"
        with encodings.open_text(opener, encoding) as stream:
            text = stream.read().replace(encodings.BROKEN, "\ufffd")
        return delimited.read_plain(text, separator, names, rejects), rejects


def _atomic(path: Path, needed: Sequence[str], columns: Mapping[str, str]) -> _Read:
    """Read a RecBole atomic file, which is tab-separated and has a type after each column name.

    Args:
        path: the file.
        needed: genrec's names of columns that the file must have.
        columns: maps genrec's column names to those in the file.
    """
    _check_exists(path)
    rejects = Rejects(path.name)
    table = files.read(path, rejects=rejects)
    table = table.rename_columns([n.split(":")[0] for n in table.column_names])
    found = arrow.column_names(table)
    for ours in needed:
        theirs = columns.get(ours, ours)
        if theirs not in found:
            msg = (
                f"{str(path)!r} has no column {theirs}. Expected a RecBole atomic file with the "
                f"columns {', '.join(needed)}; found {', '.join(found)}. "
                f'Map another column with options=EventOptions(columns={{"{ours}": "NAME"}}).'
            )
            raise DataError(msg)
    return table, rejects


def _records(path: Path, convert: Callable[[dict[str, Any]], dict[str, Any]]) -> _Read:
    """Read a file with one object per line, written as JSON or, in data from 2014, as Python.

    Args:
        path: the file.
        convert: turns an object into a row.
    """
    _check_exists(path)
    rejects = Rejects(path.name)
    columns: dict[str, list[str | None]] = {n: [] for n in convert({})}
    kept: list[int] = []
    with (
        files.readable(path),
        encodings.open_text(sources.find(path).open, "utf-8", newline="\n") as stream,
    ):
        for number, line in enumerate((x for x in stream if x.strip()), start=1):
            row, _ = json_files.parse(line)
            if not isinstance(row, dict):
                rejects.add(number, "not a JSON object", [line.strip()])
                continue
            kept.append(number)
            for name, value in convert(row).items():
                columns[name].append(None if value is None else _plain(value))
    table = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table({**table, arrow.ROW: pa.array(kept, pa.int64())}), rejects


def _plain(value: object) -> str:
    """Convert a value to text that can be stored; lone surrogates become a question mark."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text.replace(encodings.BROKEN, "\ufffd")
