"""Updates: new events and items join the old ones, and an adapter is trained further on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.baskets import dataset
from support.commands import Run
from support.tiny_runs import FEW, done, fresh, made, saved

from genrec import Dataset, Recommender
from genrec.data.readers.rejects import Rejects
from genrec.data.splits import split_last_unit
from genrec.data.updates import apply_updates
from genrec.errors import DataError, ModelError
from genrec.training import trainer

NEW = """user_id,item_id,behavior,timestamp,unit
u0,i6,buy,1590000000,late
u0,new,buy,1590000001,late
u9,i1,view,1590000002,other
"""


def files(folder: Path, text: str = NEW) -> tuple[Path, Path]:
    (folder / "new.csv").write_text(text)
    (folder / "items.csv").write_text("item_id,title\nnew,green vase\ni1,red mug (huge)\n")
    return folder / "new.csv", folder / "items.csv"


def test_what_is_new_comes_after_what_was(tmp_path: Path) -> None:
    data = dataset([[(0, "buy"), (1, "view")], [(2, "buy")]], users=2)
    both, new = apply_updates(data, *files(tmp_path))
    assert len(both.interactions) == len(data.interactions) + 3
    assert new.sum() == 3
    assert both.catalog.titles == [*data.catalog.titles[:1], "red mug (huge)", *data.catalog.titles[2:], "green vase"]  # fmt: skip
    known = both.interactions.history("u0").item_ids
    assert known == (*data.interactions.history("u0").item_ids, "i6", "new")
    where = both.interactions.events("u0")
    assert new[where].tolist() == [False] * 3 + [True] * 2
    c = both.interactions.columns
    assert c.unit[where].tolist()[-2] == c.unit[where].tolist()[-1] != c.unit[where].tolist()[-3]
    assert both.interactions.history("u9").item_ids == ("i1",)
    assert both.interactions.attributes is None
    assert both.info.items == 8
    both.save(tmp_path / "both")
    again = Dataset.load(tmp_path / "both")
    assert again.interactions.history("u0").item_ids == known


def test_old_events_keep_their_split_and_new_ones_are_train(tmp_path: Path) -> None:
    old = made(6, users=2)
    events = split_last_unit(old.interactions, "buy")
    from dataclasses import replace

    old = replace(old, interactions=events)
    both, new = apply_updates(old, *files(tmp_path))
    c = both.interactions.columns
    assert (c.split[new] == 0).all()
    assert np.sort(c.split[~new]).tolist() == np.sort(events.columns.split).tolist()


def test_positions_go_on_after_the_old_ones(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table(
        {"user_id": ["a", "a"], "item_id": ["x", "y"], "behavior": ["buy"] * 2, "position": [5, 9]}
    )
    items = pa.table({"item_id": ["x", "y"], "title": ["one", "two"]})
    old = Dataset.from_tables(items, table, name="p")
    path = tmp_path / "new.csv"
    path.write_text("user_id,item_id,behavior,position\na,x,buy,1\na,y,buy,2\n")
    both, new = apply_updates(old, path)
    assert both.interactions.history("a").item_ids == ("x", "y", "x", "y")
    assert new.tolist() == [False, False, True, True]


def test_bad_feedback_is_rejected_with_reasons(tmp_path: Path) -> None:
    data = dataset([[(0, "buy")]])
    path, _ = files(tmp_path, NEW + "u1,nothing,buy,1,z\n")
    rejects = Rejects("new.csv")
    _, new = apply_updates(data, path, rejects=rejects)
    assert new.sum() == 2  # of the items it names, the catalog lacks two
    assert sum(rejects.counts().values()) == 2
    with pytest.raises(DataError, match="not in the items file"):
        apply_updates(data, path)
    path.write_text("user_id,item_id,behavior,timestamp\nu1,nothing,buy,1\n")
    with pytest.raises(DataError, match="Fix the rows"):
        apply_updates(data, path, rejects=Rejects("new.csv"))
    path.write_text("who,what\n1,2\n")
    with pytest.raises(DataError, match="has no column"):
        apply_updates(data, path, rejects=Rejects("new.csv"))


def test_an_adapter_learns_the_new_and_keeps_the_old(tmp_path: Path) -> None:
    data = dataset([[(0, "buy")], [(2, "buy")]] * 6, users=6)
    base = str(saved(tmp_path))
    first = FEW | {"max_targets": 500}
    trainer.train(data, tmp_path / "first", base, **first)
    rows = "".join(f"u{u},new,buy,{90_000_000 + u},b{u}\n" for u in range(6)) * 1
    path, items = files(tmp_path, "user_id,item_id,behavior,timestamp,unit\n" + rows)
    both, new = apply_updates(data, path, items)
    settings = FEW | {"max_targets": 150, "eval_users": 0}
    run = trainer.train(
        both, tmp_path / "second", base, since=tmp_path / "first", new=new, **settings
    )
    assert run.finished
    history = data.interactions.history("u0").interactions

    def nats(folder: str, item: str, n: int) -> float:
        recommender = Recommender.load(tmp_path / folder, both)
        found = recommender.score(list(history[:n]), [item])[0].logprob
        assert found is not None
        return -found

    assert nats("second", "new", 12) < nats("first", "new", 12) - 0.5
    assert nats("second", "i2", 11) < nats("first", "i2", 11) + 1.0
    with pytest.raises(ModelError, match="title format"):
        trainer.train(both, tmp_path / "x", base, since=tmp_path / "first", case="lower", **FEW)
    with pytest.raises(ModelError, match="base model"):
        trainer.train(both, tmp_path / "y", fresh("qwen3"), since=tmp_path / "first", **FEW)


def test_replay_is_a_sample_of_the_old() -> None:
    from genrec.training.config import Training

    data = dataset([[(0, "buy")]] * 30)
    new = np.zeros(30, dtype=np.bool_)
    new[25:] = True
    for share, many in ((0.0, 5), (2.0, 15), (100.0, 30)):
        wanted = trainer._with_replay(data, new, Training(replay=share))
        assert wanted[25:].all()
        assert wanted.sum() == many


def test_the_command_joins_trains_and_writes_the_data(tmp_path: Path, run: Run) -> None:
    data, base = made(6, users=3), saved(tmp_path)
    data.save(tmp_path / "data")
    few = ["--max-targets", "40", "--pack-tokens", "128", "--eval-users", "0", "--device", "cpu"]
    first, out = str(tmp_path / "run"), tmp_path / "again"
    train = ["train", str(tmp_path / "data"), "--out"]
    done(run, [*train, first, "--model", str(base), *few])
    path, items = files(tmp_path)
    _, _, said = run(*train, out, "--interactions", path)
    assert "need --from RUN" in said
    feedback = ["--interactions", str(path), "--items", str(items)]
    done(run, [*train, str(out), "--from", first, *few, *feedback])
    assert "new" in Dataset.load(out / "data").catalog
    ask = ["recommend", str(out / "data"), "--run", str(out), "--user", "u9"]
    assert "green vase" in done(run, ask)
