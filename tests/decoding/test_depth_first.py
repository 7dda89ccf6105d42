"""Long lists: found depth first, equal to what a search that keeps everything finds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.commands import Run
from support.made_shop import made
from support.reference import logprobs, ranked
from support.titles import requests

from genrec import Catalog, Dataset, History, Item, Recommender
from genrec.config import PROTOCOL
from genrec.decoding import search as searching
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.types import Options, Ranking
from genrec.models.cached_tree import CachedTree
from genrec.pipeline import search_cost
from genrec.pipeline.trie_search import TrieSearch

KEEP_ALL = 1 << 30
WORDS = [
    "red",
    "blue",
    "green",
    "pink",
    "mug",
    "bag",
    "doll",
    "lamp",
    "clock",
    "set",
    "box",
    "tin",
    "house",
    "star",
    "heart",
    "1",
    "2",
    "12",
]


@contextlib.contextmanager
def keeping(tokens: int, pass_size: int = 512) -> Iterator[None]:
    """Let searches keep so many tokens, and process so many in one pass."""
    search = TrieSearch._search

    def patched(self: TrieSearch, reading: Any, asked: Any, sizes: Any, options: Options) -> Any:
        return search(self, reading, asked, sizes, replace(options, kept_tokens=tokens))

    with (
        mock.patch.object(TrieSearch, "_search", patched),
        mock.patch.object(searching, "_PASS", pass_size),
    ):
        yield


def crowded(n: int = 2_000, kind: str = "llama", **settings: Any) -> Recommender:
    rng = np.random.default_rng(1)
    titles = dict.fromkeys(" ".join(rng.choice(WORDS, size=4)) for _ in range(2 * n))
    items = [Item(f"i{i}", title) for i, title in enumerate(list(titles)[:n])]
    return Recommender(Catalog(items), tiny.language_model(kind), encoder="none", **settings)


def same(one: Sequence[Any], two: Sequence[Any]) -> None:
    """Check that two lists are equal, apart from the order of items with nearly equal scores."""
    assert [r.score for r in one] == pytest.approx([r.score for r in two], abs=3e-4)
    assert [r.logprob for r in one] == pytest.approx([r.logprob for r in two], abs=3e-4)
    values = {r.item_id: r.score for r in two}
    last = two[-1].score
    assert all(values.get(r.item_id, last) == pytest.approx(r.score, abs=3e-4) for r in one)


@given(
    requests(), st.integers(1, 20), st.sampled_from([0, 3]), st.sampled_from([1, 3, 512]),
    st.sampled_from(["exact", "beam", "auto"]),
)  # fmt: skip
def test_the_list_is_the_true_ranking(
    request: tuple[Recommender, History], k: int, kept: int, size: int, how: str
) -> None:
    recommender, history = request
    rows = [r for r in range(len(recommender.catalog)) if f"i{r}" not in history.item_ids]
    rows = rows if recommender.exclude_seen else list(range(len(recommender.catalog)))
    if not rows:
        return
    recommender = recommender.with_settings(search=how)
    sequences = list(recommender.encoder.titles(recommender.catalog))
    ids = recommender.prompt(history).ids
    values = logprobs(recommender.model.model, ids, sequences, recommender.settings.normalization)
    with keeping(kept, size):
        answer = recommender.recommend(history, k, options=PROTOCOL)
        everything = recommender.score(history)
    for found, among in ((answer, rows), (everything, range(len(values)))):
        best = ranked(values, list(among))[: len(found)]
        got = [int(r.item_id[1:]) for r in found]
        assert len(set(got)) == len(got) == min(k if found is answer else len(values), len(among))
        assert [r.logprob for r in found] == pytest.approx([values[r] for r in got], abs=1e-4)
        assert [values[r] for r in got] == pytest.approx([values[r] for r in best], abs=2e-4)
        assert found.details["certificate"]["exact"]


@pytest.mark.parametrize(
    "settings",
    [
        {"fusion": "node"},
        {"fusion": "score"},
        {"prior": "popularity", "fusion": "score", "normalization": "vocab"},
        {"prior": "none", "search": "sample", "seed": 3},
        {"fusion": "node", "search": "sample"},
        {"prior": "none", "search": "beam", "node_temperature": 3.0},
    ],
)
def test_priors_draws_and_batches_are_the_same(settings: dict[str, Any]) -> None:
    data: Dataset = made()
    recommender = Recommender(
        data, tiny.language_model(), **{"search": "exact", "beam_size": 40, **settings}
    )
    users = data.interactions.user_ids[:5]
    histories: list[Any] = ["", *map(recommender.history, users)]
    options: dict[str, Any] = {"deny": ["3", "7"]}
    if recommender.settings.normalization == "catalog":
        options["min_probability"] = 1e-6
    with keeping(KEEP_ALL):
        plain = recommender.recommend_many(histories, 9, batch_size=4, **options)
    for kept, size in ((0, 4), (6, 512)):
        with keeping(kept, size):
            found = recommender.recommend_many(histories, 9, batch_size=4, **options)
        for one, two in zip(found, plain, strict=True):
            same(one, two)
            assert one.details["certificate"]["exact"]


def test_an_edited_catalog_and_a_plain_model_give_the_same_list() -> None:
    for recommender in (crowded(300), crowded(300, "gpt2")):
        recommender.remove_items([f"i{n}" for n in range(0, 300, 7)])
        recommender.add_items([Item(f"n{n}", f"red mug new {n}") for n in range(20)])
        with keeping(KEEP_ALL):
            plain = recommender.score("i5")
        with keeping(10):
            same(recommender.score("i5"), plain)
    titles = [i.title for i in crowded(40).catalog]
    slow = Recommender(
        Catalog(Item(f"i{n}", t) for n, t in enumerate(titles)),
        tiny.language_model("llama", plain=True),
        encoder="none",
    )
    with keeping(4, 16):
        same(slow.score("i5"), crowded(40).score("i5"))


def test_the_limit_on_prefixes_holds_once_the_list_is_complete() -> None:
    recommender = crowded()
    trie, model = recommender.trie, recommender.model
    prompt = recommender.prompt("i3").ids
    (full,) = searching.score(trie, model.prefill(prompt))
    truth = dict(zip(full.rows.tolist(), full.logprobs.tolist(), strict=True))
    claims, nodes = set(), []
    for k, most in ((5, 10), (5, 100), (200, 100), (200, 400), (200, 1 << 40), (1_500, 10)):
        with mock.patch.object(searching, "_PASS", 32):
            options = Options(search="exact", max_nodes=most, kept_tokens=20, width=4)
            (found,) = searching.search(trie, model.prefill(prompt), k, options=options)
        assert len(found.rows) == k
        check_claims(found, full, truth)
        claims.add(found.certificate.exact)
        nodes.append(found.certificate.nodes)
        if k == 5:
            assert found.certificate.nodes <= most + 2 * 32
    assert claims == {True, False}
    assert nodes[2] < nodes[4]


def check_claims(found: Ranking, full: Ranking, truth: dict[int, float]) -> None:
    """Check that what a certificate says is true."""
    rows = found.rows.tolist()
    certificate, certain = found.certificate, found.certificate.certain_ranks
    assert found.logprobs == pytest.approx([truth[r] for r in rows], abs=1e-4)
    assert found.logprobs[:certain] == pytest.approx(full.logprobs[:certain], abs=4e-4)
    assert certificate.exact == (certain == len(rows))
    missed = [p for r, p in truth.items() if r not in set(rows)]
    better = [p for p in missed if p > found.logprobs[-1] + 4e-4]
    assert np.exp(better).sum() <= certificate.missed_mass_bound + 1e-6


@pytest.mark.parametrize("users", [1, 3])
@pytest.mark.parametrize("how", ["exact", "beam", "auto"])
def test_the_token_tree_stays_small(users: int, how: str) -> None:
    """A search whose tree grows with every token takes time that grows with its square."""
    recommender = crowded(4_000)
    trie = recommender.trie
    prompt = recommender.prompt("i3").ids
    sizes: list[int] = []
    grow = CachedTree.grow

    def watched(self: CachedTree, *given: Any, **more: Any) -> Any:
        result = grow(self, *given, **more)
        sizes.append(self.mark())
        return result

    allowed = Filters([Filter.all(4_000)] * users)
    with (
        mock.patch.object(CachedTree, "grow", watched),
        mock.patch.object(searching, "_PASS", 64),
    ):
        tree = recommender.model.prefill_many([prompt] * users)
        options = Options(search=how, beam_size=4_000, kept_tokens=100)
        found = searching.search(trie, tree, 2_000, allowed=allowed, options=options)
    for ranking in found:
        assert len(ranking.rows) == 2_000
        assert ranking.certificate.exact
        assert ranking.certificate.tokens > 1_500
    assert max(sizes) < 1_200
    assert tree.mark() < 900


def test_the_cost_of_a_long_list_is_said_before_and_during_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    recommender = crowded(4_000, log=said.append)
    trie = recommender.trie
    said.clear()
    recommender.recommend("i3", 1_000)
    assert said == []
    monkeypatch.setattr("genrec.pipeline.trie_search.MANY", 1_000)
    monkeypatch.setattr(search_cost, "_EVERY", 0.0)
    with keeping(100):
        answer = recommender.recommend("i3", 2_000, per_group=None)
    assert len(answer) == 2_000
    assert said[0].startswith(
        f"A list of 2,000 items: the model will process up to {trie.inner_tokens:,} tokens of titles"
    )
    assert "at the speed at which it read the prompt" in said[0]
    assert any("tokens of titles processed; up to" in line for line in said[1:])
    assert answer.details["certificate"]["tokens"] <= trie.inner_tokens
    said.clear()
    recommender.score("i3", [f"i{n}" for n in range(1_500)])
    assert said[0].startswith("A list of 1,500 items")


def test_the_command_writes_the_cost_to_standard_error(
    run: Run, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = "".join(f"{i.item_id},{i.title}\n" for i in crowded(1_500).catalog)
    (tmp_path / "items.csv").write_text(f"item_id,title\n{items}")
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu,i1,1\nu,i2,2\n")
    code, _, err = run("prepare", "--items", tmp_path / "items.csv", "--interactions",
                       tmp_path / "events.csv", "--out", tmp_path / "data")  # fmt: skip
    assert code == 0, err
    monkeypatch.setattr("genrec.pipeline.trie_search.MANY", 100)
    for command in (["recommend", "-k", 1_200], ["score"]):
        arguments = [*command, tmp_path / "data", "--history", "", "--model", model]
        code, out, err = run(*arguments)
        assert code == 0, err
        assert "items: the model will process up to" in err
        assert "the model will process" not in out
        code, out, err = run(*arguments, "--json")
        assert code == 0
        assert "the model will process" not in out + err
