"""Cells as files have them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shop_files import ITEMS, write
from genrec import Catalog, Dataset, Item
from genrec.data.ingest import EventOptions, ingest
from genrec.data.readers.files import read
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, GenrecError, SettingsError

# Fuzzing: any cells, any bytes. Good rows are never lost, bad ones are counted, no traceback.
cells = st.one_of(
    st.sampled_from(["u", "a", "b", "1", "2", "buy", "", "nan", "1e999", "-0"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
