"""A user who was erased is in no file any more."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from support import served
from support.commands import Run as Command
from support.commands import answer

from genrec import Dataset, Interaction
from genrec.baselines import registry
from genrec.config import END
from genrec.data import protocols
from genrec.data.erasing import names, without_user
from genrec.errors import DataError
from genrec.evaluation import evaluator
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.counts import Counts, count
from genrec.runs import PRIOR, RUN, Run
from genrec.service.shop import Shop
from genrec.service.store import Event, Store
from genrec.service.tables import sqlite_url

USER = "Zebra-4711"
TEXT = "quagga lamp"


def shop() -> Dataset:
    """A shop with a user whose id and text are nowhere else."""
    data = served.made_shop(30)
    table = data.interactions.to_table().to_pylist()
    import pyarrow as pa

    mine = [row for row in table if row["user_id"] == "u7"]
    rows = [{**row, "user_id": USER if row["user_id"] == "u7" else row["user_id"], "text": None}
            for row in table]  # fmt: skip
    rows.append({**mine[0], "user_id": USER, "item_id": None, "behavior": "search", "text": TEXT})
    for row in rows:
        del row["split"]
    return Dataset.from_tables(data.catalog.to_table(), pa.Table.from_pylist(rows), name="shop")


def files_with(folder: Path, *needles: str) -> list[str]:
    """The files that contain one of the texts, or are named after it, whatever the encoding."""
    found = []
    wanted = [n.encode(e) for n in needles for e in ("utf-8", "utf-16-le")]
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if any(n in path.read_bytes() or n in path.name.encode() for n in wanted):
            found.append(path.relative_to(folder).as_posix())
    return found


def saved_run(folder: Path, data: Dataset) -> Path:
    """Write the description of a run that was trained on a dataset."""
    folder.mkdir(parents=True)
    marks = (data.catalog.hash(), data.info.name, protocols.fingerprint(data))
    run = Run("m", "", "", None, "next_item", "", "", *marks, {}, {}, {}, targets=1, finished=True)
    run.write(folder)
    return folder


def same_counts(one: Counts, other: Counts) -> bool:
    assert one.user_ids == other.user_ids
    pairs = [(one.popularity, other.popularity), (one.latest, other.latest), (one.newest, other.newest),
             (one.times.row, other.times.row), (one.times.when, other.times.when)]  # fmt: skip
    sums = [(one.items, other.items), (one.after, other.after)]
    return all(np.array_equal(a, b) for a, b in pairs) and not any((a != b).nnz for a, b in sums)


def test_nothing_is_left_of_an_erased_user(tmp_path: Path, run: Command) -> None:
    data, folder = shop(), tmp_path / "shop"
    data.save(folder)
    (folder / "rejected.csv").write_text(
        f"file,row,reason,cells\ne.csv,3,bad,{USER} | x\ne.csv,4,bad,u1\n"
    )
    loaded = Dataset.load(folder)
    prior = CollaborativePrior.fit(loaded)  # is kept in the cache
    registry.fit("itemknn", loaded)
    registry.fit("userknn", loaded)
    evaluator.evaluate(loaded, ["popular"], exclude_seen=False, out=tmp_path / "results")
    saved = saved_run(tmp_path / "runs" / "one", loaded)
    prior.save(saved / PRIOR)
    store = Store(sqlite_url(folder))
    store.add_events([Event(e, USER) for e in loaded.interactions.history(USER).interactions])
    store.close()
    assert len(files_with(tmp_path, USER)) >= 7
    args = ["--user", USER, "--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    plain = answer(run, "erase", folder, *args)
    assert (plain["events"], plain["rejected"], plain["store_events"]) == (6, 1, 6)
    assert plain["results"] == 2  # a line of the log and a row of the table
    assert set(plain["removed"]) == {"baselines", "cache"}
    assert plain["runs"] == [{"run": str(saved), "learned": True, "prior": "recounted"}]
    assert files_with(tmp_path, USER, TEXT) == []
    left = Dataset.load(folder)
    others = [u for u in loaded.interactions.user_ids if u != USER]
    assert list(left.interactions.user_ids) == others
    for user in others:
        assert left.interactions.history(user) == loaded.interactions.history(user)
    assert left.info.users == 29
    assert sum(left.info.split_events.values()) == left.info.events == len(left.interactions)
    recounted = CollaborativePrior.load(saved / PRIOR, left)
    assert same_counts(recounted.counts, count(left, "buy", prior.before or END))
    assert recounted.mix == prior.mix
    again = answer(run, "erase", folder, *args)
    assert (again["events"], again["store_events"], again["results"]) == (0, 0, 0)
    assert again["runs"] == [{"run": str(saved), "learned": False, "prior": "unchanged"}]
    text = run("erase", folder, *args)[1]
    assert "Erased 0 events" in text


def test_a_prior_is_counted_as_far_as_it_was(tmp_path: Path) -> None:
    from genrec.priors.erasing import erase_from_run

    data = shop()
    saved = saved_run(tmp_path / "run", data)
    for before in ("validation", "test"):
        CollaborativePrior.fit(data, before=before).save(saved / PRIOR)
        found = erase_from_run(saved, USER, data, without_user(data, USER))
        assert (found.learned, found.prior) == (True, "recounted")
        counts = CollaborativePrior.load(saved / PRIOR, data).counts
        assert same_counts(counts, count(without_user(data, USER), "buy", before))
    other = json.loads((saved / RUN).read_text())
    (saved / RUN).write_text(
        json.dumps({**other, "catalog_hash": "other", "data_fingerprint": "x"})
    )
    CollaborativePrior.fit(data).save(saved / PRIOR)
    found = erase_from_run(saved, USER, data, without_user(data, USER))
    assert (found.learned, found.prior) == (False, "removed")
    assert not (saved / PRIOR).exists()


def test_a_run_is_found_for_the_next_user_and_its_own_data_are_erased(tmp_path: Path) -> None:
    from genrec.priors.erasing import erase_from_run

    data = shop()
    split = protocols.apply_protocol(data, "global-time")
    assert protocols.fingerprint(split) != protocols.fingerprint(data)
    run = saved_run(tmp_path / "run", split)  # with the split of its protocol
    described = json.loads((run / RUN).read_text())
    (run / RUN).write_text(json.dumps({**described, "training": {"protocol": "global-time"}}))
    left = without_user(data, USER)
    assert erase_from_run(run, USER, data, left).learned
    assert not erase_from_run(run, USER, left, left).learned
    assert erase_from_run(run, "u3", left, without_user(left, "u3")).learned
    # A run that was trained on new events has them in a dataset of its own.
    newer = saved_run(tmp_path / "newer", data)
    data.save(newer / "data")
    assert files_with(newer, USER, TEXT)
    assert erase_from_run(newer, USER, left, left).learned
    assert files_with(newer, USER, TEXT) == []


def test_the_only_user_cannot_be_erased() -> None:
    data = without_user(shop(), "nobody")
    assert protocols.fingerprint(data) == protocols.fingerprint(shop())
    for user in data.interactions.user_ids[1:]:
        data = without_user(data, user)
    with pytest.raises(DataError, match="only user"):
        without_user(data, data.interactions.user_ids[0])
    assert names("x u1.", "u1")
    assert not names("x u10", "u1")


def test_a_service_keeps_only_a_pseudonym_of_a_deleted_user(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = shop()
    with caplog.at_level(logging.DEBUG), served.opened(tmp_path, data) as client:
        served.recommend(client, user_id=USER, k=3)
        served.buy(client, USER, "i1", "i2")
        client.put(f"/v1/users/{USER}", json={"labels": {"city": "quagga town"}})
        client.delete("/v1/feedback", params={"user_id": USER, "item_id": "i1"})
        many = [{"user_id": f"v{n}", "item_id": "i3", "behavior": "buy"} for n in range(300)]
        client.post("/v1/feedback", json={"events": many}, headers={"Idempotency-Key": f"k-{USER}"})
        assert "service.db" in " ".join(files_with(tmp_path, USER))
        assert client.delete(f"/v1/users/{USER}").status_code == 200
        assert files_with(tmp_path, USER, "quagga town") == []  # while the service goes on
        shop_of = served.service_of(client).shop
        assert not shop_of.knows(USER)
        prior = shop_of.engines["tiny"].recommender.prior
        assert isinstance(prior, CollaborativePrior)
        shop_of.refresh()
        assert USER not in prior.counts.user_ids
        given = {
            f"v{n}": [Interaction("i3", "buy", e.timestamp)] for n, e in enumerate(later(shop_of))
        }
        expected = count(without_user(data, USER), "buy", prior.before or END)
        expected = expected.with_events(given, data.catalog)
        assert np.array_equal(prior.counts.popularity, expected.popularity)
        assert not (prior.counts.after != expected.after).nnz
        lines = client.get("/v1/export").text.splitlines()
        (deleted,) = [row for row in map(json.loads, lines) if row["table"] == "deleted_users"]
        assert deleted["user_id"].startswith("sha256:")
        assert USER not in client.get("/v1/export").text
    for record in caplog.records:
        assert not record.name.startswith("genrec") or USER not in json.dumps(
            vars(record), default=str
        )
    (tmp_path / "export.jsonl").write_text("\n".join(lines) + "\n")
    # After a restart, and in a training with the export, the user's events are not used.
    from genrec.data.exports import read_export
    from genrec.data.feedback import add_feedback

    with served.opened(tmp_path, data) as client:
        assert not served.service_of(client).shop.knows(USER)
        assert len(served.service_of(client).shop.history(USER).interactions) == 0
    export = read_export(tmp_path / "export.jsonl")
    assert export.deleted.has(USER)
    assert not export.deleted.has("u1")
    more, _ = add_feedback(data, export)
    assert USER not in more.interactions.user_ids
    assert "u1" in more.interactions.user_ids


def later(shop_of: Shop) -> list[Interaction]:
    return [e.interaction for e in shop_of.store.events_after(0, "buy")]


def test_ids_of_earlier_versions_are_understood_and_replaced(tmp_path: Path) -> None:
    from genrec.service import tables

    store = Store(sqlite_url(tmp_path))
    with store.writing("") as connection:
        row = {"user_id": USER, "deleted": 1.0}
        connection.execute(tables.deleted_users.insert(), row)
    assert store.deletions().has(USER)
    store.delete_user(USER)
    assert store.deletions().has(USER)
    assert files_with(tmp_path, USER) == []
    store.forget_user(USER)
    assert not store.deletions().has(USER)
    store.close()
