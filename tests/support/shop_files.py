"""Small files of a shop."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import tiny
from hypothesis import given
from hypothesis import strategies as st
from genrec import Catalog, Dataset, Interactions, Item, Recommender
from genrec.baselines import registry
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.readers.rejects import Rejects
from genrec.data.splits import split_last_unit
from genrec.errors import DataError, RequestError, SettingsError, UnknownUserError
from genrec.evaluation import evaluator, tuning
from genrec.priors.collaborative import CollaborativePrior

ITEMS = "item_id,title,price,colour\na,Red mug,1.5,red\nb,Blue mug,2,\nc,Doll,,pink\n"


EVENTS = (
    "user_id,item_id,timestamp,behavior,value,invoice,country\n"
    "u,a,10,buy,2,i1,DE\nu,b,10,buy,,i1,DE\nu,c,20,view,,i2,FR\nu,c,30,buy,1,i3,FR\n"
    "u,a,40,buy,1,i4,FR\nv,b,5,buy,1,i5,\n"
)


def write(folder: Path, items: str = ITEMS, events: str = EVENTS) -> tuple[Path, Path]:
    one, two = folder / "items.csv", folder / "events.csv"
    one.write_bytes(items.encode("utf-8", "surrogateescape"))
    two.write_bytes(events.encode("utf-8", "surrogateescape"))
    return one, two


def splits(data: Dataset, user: str) -> list[tuple[str, str]]:
    where = data.interactions.events(user)
    table = data.interactions.to_table().slice(where.start, where.stop - where.start)
    return list(zip(table["item_id"].to_pylist(), table["split"].to_pylist(), strict=True))
