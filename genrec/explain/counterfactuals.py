"""Explain the rank of an item, and find changes to the history that would improve it.

Two kinds of changes are tried: an event is left out, or an event with another item is added at the
end. The candidates for the added item are the items with the most similar titles, the recommended
items, and the items that the prior ranks highest for a history with only the explained item. Trying
every item in the catalog would require thousands of prompts, so only these candidates are tried,
and the result states how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from genrec.config import EXPLAIN, FUSE
from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.search import search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Ranking
from genrec.explain.evidence import (
    Change,
    Counterfactuals,
    Question,
    rank_by_weights,
    search_again,
)
from genrec.explain.types import Evidence, Explanation
from genrec.matching.history_parser import Understood
from genrec.matching.ngrams import CharNgrams
from genrec.models.token_tree import ROOT, TokenTree
from genrec.priors.positions import PositionWeights
from genrec.text import one_line
from genrec.types import IntArray

SCHEMA_VERSION = 1
LIKE, OTHERS = 16, 8  # the number of candidates with similar titles, and of each other kind
SHOWN = 3  # the report shows at most this many events against the item, and recommendations
_MOST_TITLES = 100_000  # the maximum number of titles to compare by character n-grams
_MOST_TOKENS = (
    20_000  # a catalog with more tokens than this is not scored completely to find a rank
)
_RARE = 1e-4  # in a larger catalog, items with a lower probability are not ranked
_NEAR = 1e-4  # nats; log-probabilities closer than this count as equal


@dataclass(frozen=True, slots=True)
class Choice:
    """A point in the item's title at which the model prefers to continue with another title.

    Attributes:
        written: the item's title up to this point.
        wanted: the next piece of text in the item's title.
        share: the probability of this text among the continuations of all titles at this point.
        rather: the most probable continuation at this point; empty if it is only a space.
        rather_share: the probability of the most probable continuation.
        such_as: an example of a title with the most probable continuation.
    """

    written: str
    wanted: str
    share: float
    rather: str
    rather_share: float
    such_as: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The effect that leaving out or adding one event has on the explained item.

    Attributes:
        item_id: the id of the event's item; None if the event consists only of text.
        title: the title of the event's item, or the text of the event.
        behavior: the behavior of the event.
        nats: the increase in the explained item's score, in nats.
        rank: the rank of the explained item in the new list; None if it is not in the top k.
        event: if an event is left out, its index in the prompt, where event 0 is the oldest; None
            if an event is added.
    """

    item_id: str | None
    title: str
    behavior: str
    nats: float
    rank: int | None
    event: int | None = None


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """The rank of an item, with the reasons for it.

    Attributes:
        user_id: the id of the user with this history; None for a user who is not in the data.
        item_id: the id of the item.
        title: the title of the item as given in the catalog.
        behavior: the requested behavior.
        logprob: the natural logarithm of the item's probability.
        score: the value by which the item is ranked.
        rank: the rank that the item has, or would have, among all items that may be returned; None
            if it is unknown.
        lower_than: the number of items that are known to rank higher, if the item's rank is
            unknown; 0 if it is known.
        among: the number of items among which the item is ranked.
        allowed: True if the item may be returned.
        excluded_by: the reason why the item may not be returned: ``filters`` for an option such as
            ``where``, or the name of a rule about the user's own items (see
            ``RecommendationList.left_out``). None if nothing excludes the item.
        k: the number of recommended items.
        explanation: the evidence and a sentence about the item.
        against: the events with the strongest evidence against the item.
        choices: the points in the item's title at which the model, without a prior, prefers another
            continuation.
        instead: the top recommendations, each as (rank, item_id, title, score).
        removal: the event whose removal raises the item's score the most; None if no removal raises
            it.
        addition: the event whose addition raises the item's score the most; None if no candidate
            raises it.
        tried: the number of candidate items tried for ``addition``.
        listed: True if the item is in the list. With limits such as ``per_group``, the list may
            leave out an item in the top k and contain an item with a lower rank instead.
        understood: the interpretation of each piece of a typed history.
        notes: remarks for the user.
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
    listed: bool
    excluded_by: str | None = None
    understood: tuple[Understood, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def probability(self) -> float:
        """Return the item's probability, from 0 to 1."""
        return float(np.exp(self.logprob))

    @property
    def recommended(self) -> bool:
        """Return True if the item is among the k recommended items."""
        return self.allowed and self.listed

    def to_dict(self) -> dict[str, Any]:
        """Convert the explanation to a dictionary of plain values that can be written as JSON."""
        names = ("rank", "item_id", "title", "score")
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "probability": self.probability,
            "recommended": self.recommended,
            "instead": [dict(zip(names, one, strict=True)) for one in self.instead],
            "notes": list(self.notes),
        }


def examine_item(
    question: Question,
    catalog: Catalog,
    row: int,
    explain: Callable[[bool], Explanation],
    allowed: Filter,
    k: int,
    behavior: str,
    decode: Callable[[Sequence[int]], str],
) -> ItemExplanation:
    """Find the rank of an item, explain it, and find changes that would improve it.

    Args:
        question: the request.
        catalog: the items.
        row: the catalog row of the item.
        explain: a function that explains the item. Its argument is True if the item is
            recommended.
        allowed: the items that may be returned.
        k: the number of recommended items.
        behavior: the requested behavior.
        decode: a function that converts token ids to text.
    """
    position = question.trie.positions_of(np.array([row]))
    prompt = question.render(question.window)
    tree = None
    if question.role != EXPLAIN:
        tree = question.tree(prompt)
    if question.role == FUSE:
        weights = None if question.prior is None else [question.prior.weights(question.history)]
        prior = None if weights is None else PositionWeights(weights, question.trie)
        assert tree is not None
        own, rank, lower = _rank_item(question, tree, prior, position, allowed)
    else:
        own, rank = rank_by_weights(question, row, allowed)
        lower = 0
    (best,) = question.search([(question.history, prompt)])
    place = np.flatnonzero(best.rows == row)
    limited = best.chosen_from is not None  # so a place in the list is not a rank among all items
    if rank is None and len(place) and not limited:
        rank, lower = int(place[0]) + 1, 0
    listed = bool(len(place)) if limited else rank is not None and rank <= k
    item = catalog[row]
    may_return = bool(allowed.keeps(position)[0])
    explanation = explain(may_return and listed)
    if not may_return:
        without = tuple(replace(w, rank=None) for w in explanation.without)
        explanation = replace(explanation, without=without)
    evidence = explanation.evidence
    against = sorted((e for e in evidence if e.nats < 0), key=lambda e: e.nats)
    addition, tried = _best_addition(question, catalog, row, behavior, best.rows.tolist())
    return ItemExplanation(
        user_id=question.history.user_id,
        item_id=item.item_id,
        title=item.title,
        behavior=behavior,
        logprob=float(own.logprobs[0]),
        score=float(own.scores[0]),
        rank=rank,
        lower_than=lower,
        among=allowed.also(position).count_items(question.trie.n_items),
        allowed=may_return,
        k=k,
        explanation=explanation,
        against=tuple(against[:SHOWN]),
        choices=()
        if tree is None
        else tuple(_find_choices(question, catalog, tree, int(position[0]), decode)),
        instead=tuple(
            (n, catalog[r].item_id, catalog[r].title, float(s))
            for n, (r, s) in enumerate(zip(best.rows.tolist(), best.scores, strict=True), 1)
            if may_return or r != row
        )[:SHOWN],
        removal=_best_removal(question, row, evidence),
        addition=addition,
        tried=tried,
        listed=listed,
    )


def _rank_item(
    question: Question,
    tree: TokenTree,
    prior: PositionWeights | None,
    position: IntArray,
    allowed: Filter,
) -> tuple[Ranking, int | None, int]:
    """Compute the score of an item and find its rank.

    Args:
        question: the request.
        tree: the token tree of the prompt.
        prior: the prior's weights by trie position, or None.
        position: (1,) the position of the item in the trie.
        allowed: the items that may be returned.

    Returns:
        A ranking that contains only this item, with its score; its rank, or None if the rank is
        unknown; and the number of items that are known to rank higher, which is 0 if the rank is
        known.
    """
    trie = question.trie
    options = replace(question.options, draw=None, min_probability=0.0)
    only = Filters([Filter.allow(position, trie.n_positions)])
    (own,) = search(trie, tree, [1], allowed=only, prior=prior, options=options)
    by_probability = options.boosts is None and (prior is None or options.fusion == "node")
    margin = max(options.tolerance, _NEAR)  # rounding may differ when more items are scored
    floor = float(np.exp(own.logprobs[0] - margin)) if by_probability else 0.0
    if trie.inner_tokens > _MOST_TOKENS:
        floor = max(floor, _RARE)
    among = allowed.also(position)
    (above,) = search(
        trie,
        tree,
        [max(among.count_items(question.trie.n_items), 1)],
        allowed=Filters([among]),
        prior=prior,
        options=replace(options, min_probability=floor),
    )
    index = np.flatnonzero(above.rows == own.rows[0])
    if len(index):
        return own, int(index[0]) + 1, 0
    return own, None, int((above.scores > own.scores[0]).sum())


def _find_choices(
    question: Question,
    catalog: Catalog,
    tree: TokenTree,
    position: int,
    decode: Callable[[Sequence[int]], str],
) -> list[Choice]:
    """Find the points in an item's title at which the model prefers to continue with another title.

    Args:
        question: the request.
        catalog: the items.
        tree: the token tree of the prompt, which is extended along the title.
        position: the position of the item in the trie.
        decode: a function that converts token ids to text.
    """
    trie = question.trie
    node, handle, outputs = trie.root, ROOT, tree.root
    written: list[int] = []
    choices: list[Choice] = []
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
                    _added_text(
                        decode,
                        written,
                        runs[i],
                        _remaining_tokens(trie, int(child[i]), int(low[owner == i][0])),
                    )
                    for i in (own, best)
                ]
                example = trie.rows_at(low[owner == best][:1])
                choices.append(
                    Choice(
                        one_line(_decode_whole(decode, written)),
                        texts[0],
                        float(shares[own]),
                        texts[1],
                        float(shares[best]),
                        catalog[int(example[0])].title,
                    )
                )
        node = int(child[own])
        written += runs[own]
        if not trie.is_leaf(np.array([node]))[0]:
            handles, outputs = tree.grow([0], [handle], [runs[own]])
            handle = int(handles[0])
    return choices


def _decode_whole(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> str:
    """Convert token ids to text, and drop an incomplete character at the end."""
    return str(decode(list(ids))).rstrip("\ufffd")


def _added_text(
    decode: Callable[[Sequence[int]], str], before: list[int], run: list[int], rest: list[int]
) -> str:
    """Return the text that is added to the beginning of a title by further tokens.

    Args:
        decode: a function that converts token ids to text.
        before: the token ids of the beginning.
        run: the token ids to add.
        rest: the token ids that follow them. If ``run`` ends in the middle of a character, some of
            these are used to complete it.
    """
    start = len(_decode_whole(decode, before))
    for end in range(len(rest) + 1):
        added = _decode_whole(decode, [*before, *run, *rest[:end]])[start:]
        if added:
            return one_line(added)
    return ""


def _remaining_tokens(trie: TitleTrie | LiveTrie, node: int, position: int) -> list[int]:
    """Return the token ids that follow a node on the path to the title at a trie position."""
    tokens: list[int] = []
    while not trie.is_leaf(np.array([node]))[0]:
        child, _ = trie.children(np.array([node]))
        owner, low, high = trie.intervals(child)
        own = int(owner[(low <= position) & (position < high)][0])
        node = int(child[own])
        tokens += trie.runs(child[own : own + 1])[0]
    return tokens


def _best_removal(question: Question, row: int, evidence: Sequence[Evidence]) -> WhatIf | None:
    """Find the event whose removal raises the item's score the most.

    Returns:
        The effect of the removal, or None if no removal raises the score.
    """
    if not evidence:
        return None
    index = min(range(len(evidence)), key=lambda i: evidence[i].nats)
    e = evidence[index]
    if e.nats >= 0:
        return None
    (after,) = search_again(question, [Change((index,))])
    return WhatIf(e.item_id, e.title, e.behavior, -e.nats, after.get(row), index)


def _best_addition(
    question: Question, catalog: Catalog, row: int, behavior: str, best: Sequence[int]
) -> tuple[WhatIf | None, int]:
    """Find the event whose addition raises the item's score the most.

    Args:
        question: the request.
        catalog: the items.
        row: the catalog row of the explained item.
        behavior: the behavior of the added event.
        best: the catalog rows of the recommended items.

    Returns:
        The effect of the addition, or None if no candidate raises the score; and the number of
        candidates tried.
    """
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
    drops = Counterfactuals(question, [row], changes).measure_drops(range(len(changes)))
    rises = -drops.total[:, 0]
    most = int(rises.argmax())
    event = changes[most].added
    if event is None or event.item_id is None or rises[most] <= 0:
        return None, len(changes)
    (after,) = search_again(question, [changes[most]])
    title = catalog[catalog.row(event.item_id)].title
    rise = float(rises[most])
    return WhatIf(event.item_id, title, behavior, rise, after.get(row)), len(changes)


def _candidates(
    question: Question, catalog: Catalog, row: int, behavior: str, best: Sequence[int]
) -> list[int]:
    """Choose the items to try as additions to the history, and return their catalog rows.

    The item itself and items in the history are left out.
    """
    item = catalog[row]
    every = range(0, len(catalog), -(-len(catalog) // _MOST_TITLES))
    titles = [one_line(catalog[r].title).lower() for r in every]
    own = one_line(item.title).lower()
    near = CharNgrams(titles).nearest(own, LIKE + len(question.window) + 1)[0]
    candidates = _without_known(question, catalog, row, [every[n] for n in near.tolist()])[:LIKE]
    if question.prior is not None:
        weights = question.prior.weights(History((Interaction(item.item_id, behavior),)))
        order = np.argsort(-weights.values, kind="stable")[:OTHERS]
        candidates += (order if weights.rows is None else weights.rows[order]).tolist()
    return _without_known(question, catalog, row, [*candidates, *best[:OTHERS]])


def _without_known(
    question: Question, catalog: Catalog, row: int, rows: Sequence[int]
) -> list[int]:
    """Drop the catalog rows of items that cannot be tried as additions.

    These are repeated rows, removed items, items in the history, and items with the same title as
    the item in ``row``.
    """
    known = set(catalog.rows(question.window.item_ids)) | {row}
    distinct = list(dict.fromkeys(rows))
    in_trie = question.trie.find_positions(np.array(distinct, dtype=np.int64)) >= 0
    title = one_line(catalog[row].title).lower()
    return [
        r
        for r, present in zip(distinct, in_trie.tolist(), strict=True)
        if present and r not in known and one_line(catalog[r].title).lower() != title
    ]
