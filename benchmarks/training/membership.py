"""Attack the shipped adapter of the demo by membership inference.

    python -m benchmarks.training.membership --data FOLDER --users 100

The adapter was trained on all customers of the bundled sample. Non-members are the other customers of the full
UCI Online Retail data with 5 to 150 events, as in the sample, and the same items. ``--data`` is a folder with
``interactions.csv.gz`` of the full data in genrec's columns. The result is kept in
.results/training/membership.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.common import ROOT, commit
from genrec import Dataset
from genrec.data.datasets import load
from genrec.data.readers import arrow, files
from genrec.data.readers.rejects import Rejects
from genrec.json_text import to_json
from genrec.training.privacy_audit import audit_privacy
from genrec.training.shadows import AuditOptions

LEAST, MOST = 5, 150  # events of a customer of the sample; see its data card


def main() -> None:
    """Choose the other customers, run the audit and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--users", type=int, default=100, help="customers on each side")
    given = parser.parse_args()
    demo = load("online_retail_demo")
    path = given.data / "interactions.csv.gz"
    table = files.read(path, rejects=Rejects(path.name, strict=True))
    table = table.select(arrow.column_names(table))
    users = np.array(arrow.to_strings(table["user_id"]))
    names, code, count = np.unique(users, return_inverse=True, return_counts=True)
    mine = set(demo.interactions.user_ids)
    wanted = np.array(
        [LEAST <= n <= MOST and u not in mine for u, n in zip(names, count, strict=True)]
    )
    items = {item.item_id for item in demo.catalog}
    kept = wanted[code] & np.isin(np.array(arrow.to_strings(table["item_id"])), list(items))
    outside = Dataset.from_tables(
        demo.catalog.to_table(), table.filter(pa.array(kept)), name="other customers"
    )
    print(f"{wanted.sum():,} other customers, {len(outside.interactions.user_ids):,} with events")
    began = time.process_time()
    found = audit_privacy(
        "online_retail_demo",
        demo,
        AuditOptions(users=given.users, threads=1),
        outside=outside,
        log=print,
    )
    about = {"commit": commit(), "processor_seconds": round(time.process_time() - began)}
    text = to_json({**found.to_dict(), **about})
    (ROOT / ".results" / "training").mkdir(parents=True, exist_ok=True)
    (ROOT / ".results" / "training" / "membership.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
