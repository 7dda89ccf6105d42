"""Why not, and what if: where any item stands, what speaks against it, what would raise it most.

The changes of the history that are tried are each event left out, and one event more with another
item: those with the likest titles, those that are recommended, and those that the prior puts next
to the item. Not the whole catalog, which would be thousands of prompts; ``tried`` says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.search import search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Ranking
from genrec.explain.evidence import Change, Counterfactuals, Question, ranks
from genrec.explain.types import Evidence, Explanation
from genrec.matching.ngrams import CharNgrams
from genrec.models.token_tree import ROOT, TokenTree
from genrec.priors.positions import PositionWeights
from genrec.text import one_line

SCHEMA_VERSION = 1
LIKE, OTHERS = 16, 8  # items tried: with the likest titles, and of each other kind
SHOWN = 3  # events against, recommendations
_MOST_TITLES = 100_000  # that are compared by character n-grams
_MOST_TOKENS = 20_000  # of a catalog that is scored whole to find a rank
_RARE = 1e-4  # in a larger one items below this probability are not ranked
_NEAR = 1e-4  # nats; probabilities that are nearer are not told apart


@dataclass(frozen=True, slots=True)
class Choice:
    """A place where titles part and the model would rather go on in another way.

    Attributes:
        written: of the item's title so far.
        wanted: how the item's goes on.
        share: the model's probability of that, of all ways there.
        rather: the most probable way; empty where it is no more than a space.
        rather_share: its probability.
        such_as: a title that goes on so.
    """

    written: str
    wanted: str
    share: float
    rather: str
    rather_share: float
    such_as: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A change of the history and what it does.

    Attributes:
        item_id: of the event; None for an event of text only.
        title: of its item, or its text.
        behavior: of the event.
        nats: how far the item's score rises.
        rank: of the item in the new list of k; None where it is not in it.
    """

    item_id: str | None
    title: str
    behavior: str
    nats: float
    rank: int | None


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """Where an item stands and why.

    Attributes:
        user_id: whose history it is; None for somebody not in the data.
        item_id: of the item.
        title: as given.
        behavior: what was asked for.
        logprob: natural log of its probability.
        score: what ranks it.
        rank: among the items that may be returned, and this one; None where it is lower than
            ``lower_than``.
        lower_than: the rank below which it stands surely; 0 where the rank is known.
        among: how many items these are.
        allowed: whether it may be returned, and is no item of the history that is left out.
        k: how many are recommended.
        explanation: evidence and sentence.
        against: the events that speak most against it.
        choices: where its title parts from what the model would rather write, by the model alone.
        instead: the first recommendations: rank, item_id, title, score.
        removal: the event of the history whose absence raises its score most, if any does.
        addition: the item whose event at the end of the history would, if any that was tried does.
        tried: how many items were tried.
    """

    user_id: str | None
    item_id: str
    title: str
    behavior: str
    logprob: float
    score: float
    rank: int | None
    lower_than: int
    among: int
    allowed: bool
    k: int
    explanation: Explanation
    against: tuple[Evidence, ...]
    choices: tuple[Choice, ...]
    instead: tuple[tuple[int, str, str, float], ...]
    removal: WhatIf | None
    addition: WhatIf | None
    tried: int

    @property
    def probability(self) -> float:
        """exp(logprob)."""
        return float(np.exp(self.logprob))

    @property
    def recommended(self) -> bool:
        """Whether it is among the k."""
        return self.allowed and self.rank is not None and self.rank <= self.k

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("rank", "item_id", "title", "score")
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "probability": self.probability,
            "recommended": self.recommended,
            "instead": [dict(zip(names, one, strict=True)) for one in self.instead],
        }


def examined(
    question: Question,
    catalog: Catalog,
    row: int,
    explain: Callable[[bool], Explanation],
    allowed: Filter,
    k: int,
    behavior: str,
    decode: Callable[[Sequence[int]], str],
) -> ItemExplanation:
    """Everything on one item.

    Args:
        question: the request.
        catalog: the items.
        row: of the item.
        explain: explains it, given whether it is recommended.
        allowed: what may be returned.
        k: how many are recommended.
        behavior: what is asked for.
        decode: token ids to text.
    """
    place = question.trie.positions_of(np.array([row]))
    tree = question.model.prefill_many([question.render(question.window).ids], question.prefix)
    weights = None if question.prior is None else [question.prior.weights(question.history)]
    prior = None if weights is None else PositionWeights(weights, question.trie)
    own, rank, lower = _standing(question, tree, prior, place, allowed)
    (best,) = question.search([(question.history, question.render(question.window))])
    listed = np.flatnonzero(best.rows == row)
    if rank is None and len(listed):
        rank, lower = int(listed[0]) + 1, 0
    item = catalog[row]
    returned = bool(allowed.keeps(place)[0])
    explanation = explain(returned and rank is not None and rank <= k)
    if not returned:
        without = tuple(replace(w, rank=None) for w in explanation.without)
        explanation = replace(explanation, without=without)
    evidence = explanation.evidence
    against = sorted((e for e in evidence if e.nats < 0), key=lambda e: e.nats)
    added, tried = _addition(question, catalog, row, behavior, best.rows.tolist())
    return ItemExplanation(
        user_id=question.history.user_id,
        item_id=item.item_id,
        title=item.title,
        behavior=behavior,
        logprob=float(own.logprobs[0]),
        score=float(own.scores[0]),
        rank=rank,
        lower_than=lower,
        among=_count(question, allowed.also(place)),
        allowed=returned,
        k=k,
        explanation=explanation,
        against=tuple(against[:SHOWN]),
        choices=tuple(_choices(question, catalog, tree, int(place[0]), decode)),
        instead=tuple(
            (n, catalog[r].item_id, catalog[r].title, float(s))
            for n, (r, s) in enumerate(zip(best.rows.tolist(), best.scores, strict=True), 1)
            if returned or r != row
        )[:SHOWN],
        removal=_removal(question, row, evidence),
        addition=added,
        tried=tried,
    )


def _count(question: Question, allowed: Filter) -> int:
    """How many items a filter allows; it counts the places of removed ones."""
    gone = question.trie.n_positions - question.trie.n_items if allowed.denies else 0
    return len(allowed) - gone


def _standing(
    question: Question,
    tree: TokenTree,
    prior: PositionWeights | None,
    place: np.ndarray[Any, np.dtype[np.int64]],
    allowed: Filter,
) -> tuple[Ranking, int | None, int]:
    """An item's own score, its rank, and where that is None how many items are above it surely."""
    trie = question.trie
    options = replace(question.options, draw=None, min_probability=0.0)
    only = Filters([Filter.allow(place, trie.n_positions)])
    (own,) = search(trie, tree, [1], allowed=only, prior=prior, options=options)
    by_probability = prior is None or options.fusion == "node"
    near = max(options.tolerance, _NEAR)  # what rounding may make of it among others, in bfloat16
    floor = float(np.exp(own.logprobs[0] - near)) if by_probability else 0.0
    if trie.inner_tokens > _MOST_TOKENS:
        floor = max(floor, _RARE)
    among = allowed.also(place)
    (above,) = search(
        trie,
        tree,
        [max(_count(question, among), 1)],
        allowed=Filters([among]),
        prior=prior,
        options=replace(options, min_probability=floor),
    )
    found = np.flatnonzero(above.rows == own.rows[0])
    if len(found):
        return own, int(found[0]) + 1, 0
    return own, None, int((above.scores > own.scores[0]).sum())


def _choices(
    question: Question,
    catalog: Catalog,
    tree: TokenTree,
    position: int,
    decode: Callable[[Sequence[int]], str],
) -> list[Choice]:
    """Where the model would rather write another title than that at a position of the trie."""
    trie = question.trie
    node, handle, outputs = trie.root, ROOT, tree.root
    written: list[int] = []
    found: list[Choice] = []
    while not trie.is_leaf(np.array([node]))[0]:
        child, count = trie.children(np.array([node]))
        owner, low, high = trie.intervals(child)
        own = int(owner[(low <= position) & (position < high)][0])
        runs = trie.runs(child)
        if count[0] > 1:
            zeros = np.zeros(len(child), dtype=np.int64)
            alone = question.options.alone or question.options.temperature
            values = outputs.at(zeros, trie.tokens(child)) / alone
            shares = np.exp(values - np.logaddexp.reduce(values))
            best = int(shares.argmax())
            if best != own:
                texts = [
                    _said(
                        decode,
                        written,
                        runs[i],
                        _rest(trie, int(child[i]), int(low[owner == i][0])),
                    )
                    for i in (own, best)
                ]
                some = trie.rows_at(low[owner == best][:1])
                found.append(
                    Choice(
                        one_line(_whole(decode, written)),
                        texts[0],
                        float(shares[own]),
                        texts[1],
                        float(shares[best]),
                        catalog[int(some[0])].title,
                    )
                )
        node = int(child[own])
        written += runs[own]
        if not trie.is_leaf(np.array([node]))[0]:
            handles, outputs = tree.grow([0], [handle], [runs[own]])
            handle = int(handles[0])
    return found


def _whole(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> str:
    """The text of tokens as far as its characters are whole."""
    return str(decode(list(ids))).rstrip("\ufffd")


def _said(
    decode: Callable[[Sequence[int]], str], before: list[int], run: list[int], rest: list[int]
) -> str:
    """What a run of tokens adds to a title: one character at least, of the rest if need be."""
    start = len(_whole(decode, before))
    for end in range(len(rest) + 1):
        said = _whole(decode, [*before, *run, *rest[:end]])[start:]
        if said:
            return one_line(said)
    return ""


def _rest(trie: TitleTrie | LiveTrie, node: int, position: int) -> list[int]:
    """The tokens of the title at a position after a node of its path."""
    tokens: list[int] = []
    while not trie.is_leaf(np.array([node]))[0]:
        child, _ = trie.children(np.array([node]))
        owner, low, high = trie.intervals(child)
        own = int(owner[(low <= position) & (position < high)][0])
        node = int(child[own])
        tokens += trie.runs(child[own : own + 1])[0]
    return tokens


def _removal(question: Question, row: int, evidence: Sequence[Evidence]) -> WhatIf | None:
    """The event whose absence raises the item's score most."""
    if not evidence:
        return None
    place = min(range(len(evidence)), key=lambda i: evidence[i].nats)
    e = evidence[place]
    if e.nats >= 0:
        return None
    (after,) = ranks(question, [Change((place,))])
    return WhatIf(e.item_id, e.title, e.behavior, -e.nats, after.get(row))


def _addition(
    question: Question, catalog: Catalog, row: int, behavior: str, best: Sequence[int]
) -> tuple[WhatIf | None, int]:
    """The tried item whose event at the end raises the item's score most, and how many were."""
    room = question.model.context - len(question.render(question.window).ids)
    last = max((e.timestamp for e in question.history.interactions), default=0.0)
    changes = [
        Change(added=Interaction(catalog[r].item_id, behavior, last))
        for r in _candidates(question, catalog, row, behavior, best)
    ]
    longest = question.trie.max_depth
    changes = changes if room > 3 * longest else []
    if not changes:
        return None, 0
    rises = -Counterfactuals(question, [row], changes).falls(range(len(changes))).total[:, 0]
    most = int(rises.argmax())
    event = changes[most].added
    if event is None or event.item_id is None or rises[most] <= 0:
        return None, len(changes)
    (after,) = ranks(question, [changes[most]])
    title = catalog[catalog.row(event.item_id)].title
    rise = float(rises[most])
    return WhatIf(event.item_id, title, behavior, rise, after.get(row)), len(changes)


def _candidates(
    question: Question, catalog: Catalog, row: int, behavior: str, best: Sequence[int]
) -> list[int]:
    """Rows of the items that are tried, but for the item itself and those of the history."""
    item = catalog[row]
    found: list[int] = []
    every = range(0, len(catalog), -(-len(catalog) // _MOST_TITLES))
    titles = [one_line(catalog[r].title).lower() for r in every]
    own = one_line(item.title).lower()
    near = CharNgrams(titles).nearest(own, LIKE + len(question.window) + 1)[0]
    found += [every[n] for n in near.tolist()]
    found = _others(question, catalog, row, found)[:LIKE]
    if question.prior is not None:
        weights = question.prior.weights(History((Interaction(item.item_id, behavior),)))
        order = np.argsort(-weights.values, kind="stable")[:OTHERS]
        found += (order if weights.rows is None else weights.rows[order]).tolist()
    return _others(question, catalog, row, [*found, *best[:OTHERS]])


def _others(question: Question, catalog: Catalog, row: int, rows: Sequence[int]) -> list[int]:
    seen = set(catalog.rows(question.window.item_ids)) | {row}
    once = list(dict.fromkeys(rows))
    there = question.trie.find_positions(np.array(once, dtype=np.int64)) >= 0
    title = one_line(catalog[row].title).lower()
    return [
        r
        for r, held in zip(once, there.tolist(), strict=True)
        if held and r not in seen and one_line(catalog[r].title).lower() != title
    ]
