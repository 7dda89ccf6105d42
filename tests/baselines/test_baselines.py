"""One contract for every baseline and for Recommender; the counting by hand; parity with cornac."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import tiny
from support.made_shop import made

from genrec import Dataset, History, Interaction, Recommender
from genrec.baselines import registry
from genrec.baselines.base import Baseline, Scorer
from genrec.baselines.counting import Markov, Popular
from genrec.baselines.registry import NAMES
from genrec.baselines.training_events import TrainingEvents
from genrec.config import PROTOCOL
from genrec.data.interactions import Interactions
from genrec.errors import DataError, RequestError, SettingsError
from genrec.evaluation import evaluator
from genrec.matching import vectors

CORNAC = pytest.mark.skipif(
    importlib.util.find_spec("cornac") is None, reason="needs cornac (extra baselines)"
)
SMALL: dict[str, dict[str, Any]] = {
    "content": {"encoder": "ngrams"},
    "mf": {"factors": 4, "rounds": 2},
    "bpr": {"factors": 4, "epochs": 3},
    "sasrec": {"hidden": 8, "epochs": 2, "length": 6},
    "textseq": {"encoder": "ngrams", "hidden": 8, "epochs": 2, "length": 6},
}
EACH = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=CORNAC) if n == "bpr" else n for n in NAMES]
)
COLD = ("22", "23")  # items that nobody has


@pytest.fixture(scope="module")
def data() -> Dataset:
    return made()


def fitted(name: str, data: Dataset, **options: Any) -> Scorer:
    return registry.fit(name, data, **{**SMALL.get(name, {}), **options})


class Ours:
    """Recommender as a baseline."""

    name = "genrec"

    def __init__(self, data: Dataset) -> None:
        model = tiny.language_model()
        self.by_seen = {s: Recommender(data, model, exclude_seen=s) for s in (False, True)}

    def rank(self, history: History, k: int, *, exclude_seen: bool = False) -> Sequence[str]:
        answer = self.by_seen[exclude_seen].recommend(history, k, options=PROTOCOL)
        return [r.item_id for r in answer]


@pytest.fixture(
    scope="module",
    params=[*(pytest.param(n, marks=CORNAC) if n == "bpr" else n for n in NAMES), "genrec"],
)
def system(request: pytest.FixtureRequest, data: Dataset) -> Baseline:
    return Ours(data) if request.param == "genrec" else fitted(request.param, data)


def bought(*item_ids: str, user: str | None = None) -> History:
    return History(tuple(Interaction(i, "buy", 60.0 * n) for n, i in enumerate(item_ids)), user)


HISTORIES = {
    "known": bought("1", "4", "7", user="u5"),
    "unknown": bought("1", "4", "7", user="nobody"),
    "nobody": bought("1", "4", "7"),
    "repeats": bought("1", "1", "4", "1"),
    "cold": bought(*COLD),
    "another behavior": History((Interaction("3", "dream", 5.0),)),
    "text only": History((Interaction(None, "search", 5.0, text="a red mug"),)),
    "long": bought(*(str(n % 20) for n in range(70))),
    "empty": History(),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_contract(system: Baseline, data: Dataset, history: History) -> None:
    ids = {i.item_id for i in data.catalog}
    seen = set(history.item_ids)
    for k in (1, 5, 100):
        for exclude in (False, True):
            ranked = list(system.rank(history, k, exclude_seen=exclude))
            allowed = ids - seen if exclude else ids
            assert len(ranked) == min(k, len(allowed))
            assert len(set(ranked)) == len(ranked)
            assert set(ranked) <= allowed
            assert ranked == list(system.rank(history, k, exclude_seen=exclude))
    assert system.name


def test_a_history_counts_and_not_who_has_it(system: Baseline) -> None:
    known, unknown = HISTORIES["known"], HISTORIES["unknown"]
    assert list(system.rank(known, 10)) == list(system.rank(unknown, 10))


def test_bad_requests(system: Baseline) -> None:
    with pytest.raises(RequestError, match="Expected a whole number"):
        system.rank(History(), 0)
    with pytest.raises(RequestError, match="no such item"):
        system.rank(bought("no such item"), 3)


@EACH
def test_scores(data: Dataset, name: str) -> None:
    one = fitted(name, data)
    histories = list(HISTORIES.values())
    scores = one.scores_many(histories)
    assert scores.shape == (len(histories), 24)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    for history, row in zip(histories, scores, strict=True):
        assert one.scores(history) == pytest.approx(row, abs=1e-5)
    many = one.rank_many(histories, 7, exclude_seen=True)
    if name not in {"sasrec", "textseq"}:  # batches of other widths round otherwise
        assert many == [one.rank(h, 7, exclude_seen=True) for h in histories]


def moved(data: Dataset, first: int) -> Dataset:
    """The same with other items in the splits from one on."""
    events = data.interactions
    c = events.columns
    row = np.where(c.split >= first, (c.row + 5) % 22, c.row)
    other = Interactions(events.catalog, replace(events.table, columns=replace(c, row=row)))
    return replace(data, interactions=other)


@EACH
@pytest.mark.parametrize(("before", "first"), [("validation", 1), ("test", 2)])
def test_fits_see_nothing_later(data: Dataset, name: str, before: str, first: int) -> None:
    histories = list(HISTORIES.values())
    one = fitted(name, data, before=before)
    other = fitted(name, moved(data, first), before=before)
    assert np.array_equal(one.scores_many(histories), other.scores_many(histories))
    limit = {"validation": 1, "test": 2}[before]
    digests = [
        TrainingEvents.of(d.interactions, "buy", before).digest()
        for d in (data, moved(data, limit - 1))
    ]
    assert digests[0] != digests[1]


@EACH
def test_fits_are_kept(data: Dataset, name: str, tmp_path: Path) -> None:
    first = fitted(name, data, folder=tmp_path / "kept")
    (path,) = (tmp_path / "kept").glob(f"{name}-*.safetensors")
    written = path.stat().st_mtime_ns
    again = fitted(name, data, folder=tmp_path / "kept")
    assert path.stat().st_mtime_ns == written
    histories = list(HISTORIES.values())
    assert np.array_equal(first.scores_many(histories), again.scores_many(histories))
    fitted(name, data, before="test", folder=tmp_path / "kept")
    fitted(name, moved(data, 0), folder=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob(f"{name}-*.safetensors"))) == 3
    path.write_bytes(b"broken")
    with pytest.raises(DataError, match="is damaged"):
        fitted(name, data, folder=tmp_path / "kept")


def test_the_data_folder_keeps_fits(data: Dataset, tmp_path: Path) -> None:
    data.save(tmp_path / "shop")
    loaded = Dataset.load(tmp_path / "shop")
    registry.fit("markov", loaded)
    assert list((tmp_path / "shop" / "baselines").glob("markov-*.safetensors"))
    data.save(tmp_path / "shop")  # may still be replaced
    assert not (tmp_path / "shop" / "baselines").exists()


def test_an_evaluation_takes_fits_from_the_data_folder(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.save(tmp_path / "shop")
    names = ["popular", "markov", "itemknn", "userknn", "ease", "mf"]
    first = evaluator.evaluate(Dataset.load(tmp_path / "shop"), names)
    kept = {p.name for p in (tmp_path / "shop" / "baselines").iterdir()}
    assert len(kept) == len(names)
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(registry.load_classes()[name], "learn", lambda *_: pytest.fail("fitted"))
        again = evaluator.evaluate(Dataset.load(tmp_path / "shop"), names)
    for one, other in zip(first.results, again.results, strict=True):
        assert one.ranked == other.ranked
    evaluator.evaluate(Dataset.load(tmp_path / "shop"), names, fit_on="train+validation")
    assert len(list((tmp_path / "shop" / "baselines").iterdir())) == 2 * len(names)


def test_unknown_names_and_settings(data: Dataset) -> None:
    with pytest.raises(SettingsError, match="'popularity' is not a baseline"):
        registry.fit("popularity", data)
    with pytest.raises(SettingsError, match="The baseline 'markov' has no setting 'decai'"):
        registry.fit("markov", data, decai=1)
    with pytest.raises(SettingsError, match="fuse='sum'"):
        registry.fit("textseq", data, fuse="sum")
    with pytest.raises(RequestError, match="before='train'"):
        registry.fit("popular", data, before="train")


def few(*histories: str, **settings: Any) -> Callable[[str], dict[str, float]]:
    """Markov scores after a history, from histories of one-letter items."""
    items = pa.table({"item_id": list("abcdef"), "title": list("ABCDEF")})
    rows = [(str(u), i, n) for u, h in enumerate(histories) for n, i in enumerate(h)]
    users, item_ids, times = zip(*rows, strict=True)
    events = pa.table(
        {
            "user_id": users,
            "item_id": item_ids,
            "position": times,
            "behavior": ["buy"] * len(rows),
            "split": ["train"] * len(rows),
        }
    )
    data = Dataset.from_tables(items, events, name="few")
    markov = Markov(data.interactions, "buy", **settings)
    return lambda h: dict(zip("abcdef", markov.scores(bought(*h)).tolist(), strict=True))


def test_markov_by_hand() -> None:
    scores = few("abc", "abad", "ef")  # the last user has too few events
    # a twice and b twice in histories without repeats (abc, abd); transitions ab 2, bc, bd.
    after = scores("b")
    assert after["a"] == pytest.approx(0.3 * 2 / 7**0.5)
    assert after["c"] == after["d"] == pytest.approx(1 / 6**0.5)
    assert scores("ab")["b"] == pytest.approx(0.8 * 2 / 7**0.5)
    assert scores("abba") == scores("ab")
    assert -1 < after["e"] < 0  # by popularity, behind what transitions reach
    assert after["e"] == after["f"] < after["b"] < 0


def test_markov_with_repeats() -> None:
    scores = few("aab", keep_repeats=True, least=1)
    assert scores("a")["a"] == pytest.approx(1.3 / 7**0.5)
    assert scores("aa")["b"] == pytest.approx(1.8 / 6**0.5)


def test_markov_looks_at_the_last_five() -> None:
    scores = few("ab", "cdefc", least=2)
    assert scores("acdef")["b"] > 0
    assert scores("acdefc")["b"] > 0  # c stands where it was first
    assert few("ab", "cdefc", least=2, last=4)("acdef")["b"] < 0


def test_markov_keeps_repeats_where_people_do(demo_data: Dataset) -> None:
    assert registry.fit("markov", demo_data).settings["keep_repeats"] is True


def test_popular_excludes(data: Dataset) -> None:
    popular = Popular(data.interactions, "buy")
    top = popular.rank(History(), 3)
    assert popular.rank(bought(*top), 3, exclude_seen=True) == popular.order[3:6]


def test_an_item_is_its_own_neighbour_unless_said(data: Dataset) -> None:
    one, other = fitted("itemknn", data), fitted("itemknn", data, itself=False)
    for item_id in ("0", "5"):
        row = data.catalog.row(item_id)
        assert one.scores(bought(item_id)).argmax() == row
        assert other.scores(bought(item_id))[row] < 0
        assert one.rank(bought(item_id), 9, exclude_seen=True) == other.rank(
            bought(item_id), 9, exclude_seen=True
        )


def test_content_prefers_like_titles(data: Dataset) -> None:
    ranked = fitted("content", data).rank(bought("0"), 4, exclude_seen=True)  # red mug
    assert set(ranked) <= {"1", "2", "3", *(str(n) for n in range(4, 24, 4))}


def test_content_reads_other_scripts() -> None:
    titles = ["红色杯子", "红色杯子 大号", "电脑", "书籍"]
    items = pa.table({"item_id": list("abcd"), "title": titles})
    events = pa.table(
        {
            "user_id": ["u"] * 4,
            "item_id": list("abcd"),
            "position": [0, 1, 2, 3],
            "behavior": ["buy"] * 4,
        }
    )
    data = Dataset.from_tables(items, events, name="zh")
    said: list[str] = []

    class Latin:
        """An encoder that reads no Chinese."""

        name = "latin"
        coverage = type("R", (), {"reads": staticmethod(lambda text: False)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "load_embedder", lambda name, log: Latin())
        content = registry.fit("content", data, log=said.append)
    assert "character n-grams are used" in said[0]
    assert content.rank(bought("a"), 2, exclude_seen=True)[0] == "b"


@pytest.mark.parametrize("fuse", ["concat", "mean", "weighted"])
@pytest.mark.parametrize("body", ["lstm", "gru", "transformer"])
def test_textseq_kinds(data: Dataset, fuse: str, body: str) -> None:
    one = fitted("textseq", data, fuse=fuse, body=body)
    assert len(one.rank(HISTORIES["known"], 5)) == 5


@pytest.mark.parametrize("name", ["sasrec", "textseq"])
def test_a_killed_fit_goes_on(data: Dataset, name: str, tmp_path: Path) -> None:
    whole = fitted(name, data, epochs=4)

    def dies(text: str) -> None:
        if text.startswith("Epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(name, data, epochs=4, folder=tmp_path, log=dies)
    said: list[str] = []
    again = fitted(name, data, epochs=4, folder=tmp_path, log=said.append)
    assert [s.split(":")[0] for s in said if s.startswith("Epoch")] == ["Epoch 3", "Epoch 4"]
    histories = list(HISTORIES.values())
    assert np.allclose(whole.scores_many(histories), again.scores_many(histories), atol=1e-6)


@pytest.mark.parametrize("name", ["sasrec", "textseq", "markov", "itemknn", "ease", "mf"])
def test_they_learn_what_follows(name: str) -> None:
    items = pa.table({"item_id": [str(n) for n in range(12)], "title": list("abcdefghijkl")})
    rows = [(f"u{u}", str((u + n) % 12), n) for u in range(120) for n in range(3 + u % 5)]
    users, ids, times = zip(*rows, strict=True)
    events = pa.table(
        {"user_id": users, "item_id": ids, "position": times, "behavior": ["buy"] * len(rows)}
    )
    data = Dataset.from_tables(items, events, name="ring")
    more: dict[str, dict[str, Any]] = {}
    more["sasrec"] = {"hidden": 16, "epochs": 40, "dropout": 0.0, "rate": 0.01, "batch": 32}
    more["textseq"] = {**more["sasrec"], "encoder": "ngrams"}
    one = registry.fit(name, data, **more.get(name, {}))
    near = one.rank(bought("3", "4", "5"), 2, exclude_seen=True)
    assert near[0] == "6" if name in {"sasrec", "textseq", "markov"} else set(near) <= {"2", "6"}


@CORNAC
def test_parity_with_cornac(data: Dataset) -> None:
    import cornac

    events = TrainingEvents.of(data.interactions, "buy", "validation")
    pairs = sorted(set(zip(events.user.tolist(), events.row.tolist(), strict=True)))
    theirs = cornac.data.Dataset.from_uir([(u, i, 1.0) for u, i in pairs], seed=0)
    rows = list(theirs.iid_map)

    ease = cornac.models.EASE(lamb=10.0, posB=False, verbose=False).fit(theirs)
    ours = fitted("ease", data, penalty=10.0).arrays["weights"][np.ix_(rows, rows)]
    assert ours == pytest.approx(ease.B, abs=1e-5)


def test_arrays_in_a_file_keep_their_names(data: Dataset) -> None:
    names = {n.partition(".")[2].partition(".")[0] for n in fitted("textseq", data).arrays}
    assert names == {"", "titles", "input", "output", "behaviors", "gaps", "joined", "body", "norm"}
