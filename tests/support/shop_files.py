"""Small files of a shop."""

from __future__ import annotations

from pathlib import Path

from genrec import Dataset

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
