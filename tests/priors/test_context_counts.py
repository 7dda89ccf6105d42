"""The source ``context`` of the prior: a distribution, shrunk, updated, saved, and off where it is useless."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support import tiny

from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.config import CONTEXT
from genrec.errors import SettingsError
from genrec.priors.collaborative import COUNTED, CollaborativePrior
from genrec.priors.context_counts import ContextCounts
from genrec.priors.counts import Counts, count

MIX = {"popular": 1.0, CONTEXT: 3.0, "own": 1.0}
N = 6


def shop(useful: bool, users: int = 80) -> Dataset:
    """Users on two devices. If the context is useful, other items are bought on each of them."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        for n in range(4):
            device = str(rng.choice(["phone", "desk"]))
            own = range(3) if device == "phone" else range(3, N)
            when = 1_600_000_000 + 86_400 * n + user
            item = rng.choice(own if useful else range(N))
            rows.append((f"u{user}", f"i{item}", "buy", when, device))
    names = ("user_id", "item_id", "behavior", "timestamp", "device")
    events = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    items = pa.table(
        {"item_id": [f"i{n}" for n in range(N)], "title": [f"thing {n}" for n in range(N)]}
    )
    return Dataset.from_tables(items, events, name="shop").with_context(["device"])


@pytest.mark.parametrize("value", ["x", "y", "unknown"])
@pytest.mark.parametrize("seed", range(4))
def test_shares_are_a_distribution_by_the_formula(value: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.choice(["x", "y", "z", ""], size=3 + 20 * seed)
    events = [(int(rng.integers(N)), str(v)) for v in drawn]
    row = np.array([r for r, _ in events])
    texts = [v for _, v in events]
    contexts = ContextCounts.none(["c", "other"], N).more({"c": texts}, row)
    base = (np.bincount(row, minlength=N) + 1.0) / (len(row) + N)
    share = contexts.share({"c": value}, base)
    if value not in texts:
        assert share is None
        return
    assert share is not None
    m = contexts.columns[0].strength
    mine = np.bincount(row[[v == value for v in texts]], minlength=N)
    slowly = (mine + m * base) / (mine.sum() + m)
    assert share == pytest.approx(slowly / slowly.sum())
    assert share.sum() == pytest.approx(1)
    parts = contexts.more({}, np.array([], dtype=np.int64)).share({"c": value, "new": "x"}, base)
    assert parts == pytest.approx(share)
    rebuilt = ContextCounts.from_arrays(contexts.to_arrays(), N)
    assert rebuilt.names == contexts.names
    assert rebuilt.share({"c": value}, base) == pytest.approx(share)


def test_columns_are_independent_given_the_item() -> None:
    row = np.array([0, 0, 1, 2, 3, 3, 4, 5, 5, 5])
    texts = {"a": list("xxyyxxyyxy"), "b": list("pqpqpqpqqq")}
    contexts = ContextCounts.none(["a", "b"], N).more(texts, row)
    base = (np.bincount(row, minlength=N) + 1.0) / (len(row) + N)
    one, two, both = (
        contexts.share(c, base) for c in ({"a": "x"}, {"b": "q"}, {"a": "x", "b": "q"})
    )
    assert one is not None
    assert two is not None
    product = one * two / base
    assert both == pytest.approx(product / product.sum())


def test_a_column_that_says_nothing_has_no_effect() -> None:
    rng = np.random.default_rng(1)
    row = rng.integers(0, N, 4000)
    useless = ContextCounts.none(["c"], N).more({"c": list(rng.choice(["x", "y", "z"], 4000))}, row)
    telling = ContextCounts.none(["c"], N).more({"c": [str(r // 2) for r in row]}, row)
    base = np.bincount(row, minlength=N) / len(row)
    share = useless.share({"c": "x"}, base)
    assert share == pytest.approx(base, abs=0.01)
    assert telling.columns[0].strength < 50 < useless.columns[0].strength
    alone = ContextCounts.none(["c"], N).more({"c": ["x"] * len(row)}, row)
    assert alone.share({"c": "x"}, base) == pytest.approx(base, abs=1e-3)


def test_the_share_is_fitted_and_off_where_it_does_not_help(tmp_path: Path) -> None:
    useful, useless = (CollaborativePrior.fit(shop(u), before="test") for u in (True, False))
    assert useful.mix[CONTEXT] > 0.1
    assert useless.mix[CONTEXT] == 0
    some = CollaborativePrior.fit(shop(True), before="test", sources=["popular", "own"])
    assert CONTEXT not in some.mix
    phone, desk = (History(context={"device": c}) for c in ("phone", "desk"))
    for prior in (useful, useless):
        for history in (phone, desk, History(), History(context={"device": "tv"})):
            assert np.exp(prior.logprobs(history)).sum() == pytest.approx(1)
    assert np.exp(useful.logprobs(phone))[:3].sum() > 2 * np.exp(useful.logprobs(desk))[:3].sum()
    assert CONTEXT in useful.weights(phone).sources
    assert CONTEXT not in useful.weights(History()).sources
    useful.save(tmp_path / "prior.safetensors")
    loaded = CollaborativePrior.load(tmp_path / "prior.safetensors", shop(True))
    assert loaded.logprobs(phone) == pytest.approx(useful.logprobs(phone))


def test_both_ways_of_mixing_agree() -> None:
    data = shop(True)
    prior = CollaborativePrior(count(data, "buy", "end"), MIX)
    history = replace(data.interactions.history("u1"), context={"device": "phone"})
    mixture = prior._mixture
    one = mixture.weights(history)
    two = mixture.combine(mixture.parts_of([history])[0])
    assert {*one.sources} == {*two.sources} == {*MIX}
    dense = np.zeros(N)
    assert one.base is not None
    dense += one.base.values
    dense[one.rows] += one.values
    assert dense / dense.sum() == pytest.approx(two.values / two.values.sum())


def test_new_events_and_items_count() -> None:
    data = shop(True, 30)
    whole = CollaborativePrior(count(data, "buy", "end"), MIX)
    parts = CollaborativePrior(
        replace(Counts.none(data.catalog), contexts=ContextCounts.none(["device"], N)), MIX
    )
    for user in data.interactions.user_ids:
        events = data.interactions.history(user).interactions
        bare = [replace(e, context={}) for e in events]  # as they come from a service
        parts.update({user: bare})
    phone = History(context={"device": "phone"})
    assert parts.logprobs(phone) == pytest.approx(whole.logprobs(phone))
    larger = Catalog([*data.catalog, Item("new", "new thing")])
    on_tv = [Interaction("new", "buy", 1.7e9, attributes={"device": "tv"})] * 9
    before = whole.logprobs(phone)[0]
    whole.update({"z": [*on_tv, "new"]}, larger)
    added = np.exp(whole.logprobs(History(context={"device": "tv"})))
    assert added.sum() == pytest.approx(1)
    assert added.argmax() == N
    assert whole.logprobs(phone)[0] == pytest.approx(before, abs=0.5)
    assert whole.counts.contexts.columns[0].items.sum() == 30 * 4 + 9


def test_lists_name_the_source_and_follow_context_and_filters() -> None:
    data = shop(True)
    recommender = Recommender(data, tiny.language_model(), encoder="none", model_role="explain")
    assert recommender.template.name == "next_item_context"
    phone, desk = (
        recommender.recommend("", 3, context={"device": c}, at="any") for c in ("phone", "desk")
    )
    assert {r.item_id for r in phone} == {"i0", "i1", "i2"}
    assert {r.item_id for r in desk} == {"i3", "i4", "i5"}
    assert CONTEXT in phone.details["prior"]["counted"]
    left = recommender.recommend("", 3, context={"device": "phone"}, deny=["i0"], at="any")
    assert "i0" not in {r.item_id for r in left}
    keys = {
        Recommender(data, recommender.model, context_columns=c).tuning_key()
        for c in ("auto", "device", "none", "device,season")
    }
    assert len(keys) == 3
    bare = recommender.with_settings(context_columns="none")
    assert recommender.prior is not None
    assert bare.prior is not recommender.prior
    assert CONTEXT not in bare.recommend("", 3).details["prior"]["counted"]
    plain = Recommender(data.with_context([]), recommender.model)
    off = Recommender(data, recommender.model, context_columns="none")
    assert plain.tuning_key() == off.tuning_key()
    with pytest.raises(SettingsError, match="prior_sources='contxt'"):
        Recommender(data, recommender.model, prior_sources="contxt")
    assert {*COUNTED} & {CONTEXT} == set()
