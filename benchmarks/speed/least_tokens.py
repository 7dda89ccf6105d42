"""Count the tokens that a list and its evidence must read after the prompt, at the least.

    python -m benchmarks.speed.least_tokens --users 8

The model reads the whole trie of the demo once for each user (986 tokens). Searches with other widths and fillings then
only look its outputs up, so their passes and tokens are exact and do not depend on how busy the machine is. With a width
of 1 and no filling, a search reads what an exact list needs at the least. The evidence of ten items over the last 25
events is counted from the prompts alone: what each way of reading has to read when each event is left out in turn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.common import commit
from genrec import History, Recommender
from genrec.config import PROTOCOL
from genrec.data.datasets import load
from genrec.decoding.filters import Filters
from genrec.decoding.search import search
from genrec.decoding.shared_prefix import Branches, Paths
from genrec.evaluation import evaluator
from genrec.models.lazy_model import lazy_model, lazy_run
from genrec.models.logits import Outputs
from genrec.models.token_tree import TokenTree
from genrec.priors.positions import PositionWeights
from genrec.prompts.encoder import shared_start

DATA = "online_retail_demo"
# (width, fill, ahead); the first is today's, the second was used before tokens were read ahead
GRID = (
    (24, 64, 48), (16, 32, 0), (16, 64, 0), (24, 64, 0), (24, 64, 32), (24, 64, 64), (32, 64, 48),
    (16, 64, 48), (24, 48, 48), (32, 96, 48), (1, 0, 0),
)  # fmt: skip
RECENT = (0, 2, 4, 8)


class _Counting(TokenTree):
    """A token tree that counts the passes and tokens that a search asks for.

    Attributes:
        passes: number of tokens in each pass.
        ahead: number of tokens that are read together with the end of the prompt.
    """

    def __init__(self, tree: TokenTree) -> None:
        self._tree = tree
        self.passes: list[int] = []
        self.ahead = 0
        self._unread = True

    @property
    def root(self) -> Outputs:
        self._unread = False
        return self._tree.root

    @property
    def users(self) -> int:
        return 1

    @property
    def unread(self) -> bool:
        return self._unread

    def grow(self, user: Any, parents: Any, runs: Any, *, every: bool = False) -> Any:
        size = sum(map(len, runs))
        if self._unread:
            self.ahead, self._unread = size, False
        else:
            self.passes.append(size)
        return self._tree.grow(user, parents, runs, every=every)

    def mark(self) -> int:
        return self._tree.mark()

    def back(self, mark: int) -> None:
        self._tree.back(mark)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--run", action="store_true", help="the shipped run with its prior")
    parser.add_argument("-k", type=int, default=20)
    arguments = parser.parse_args()
    data = load(DATA)
    options: dict[str, Any] = {"log": print, "threads": 1}
    settings: dict[str, Any] = {"max_events": 100, "max_prompt_tokens": 256}
    if arguments.run:
        model = lazy_run(DATA, None, **options)
        ours = Recommender.load(DATA, data, model=model, **settings)
    else:
        ours = Recommender(data, lazy_model("smollm2-135m", **options), prior="none", **settings)
    print(f"{ours.model.name}, commit {commit()}")
    cases = evaluator.demo_v1(data, "validation")
    long = sorted(cases, key=lambda c: (-len(c.history), c.history.user_id))[:60]
    chosen = [long[i].history for i in np.random.default_rng(0).permutation(60)]
    count_evidence(ours.with_settings(max_events=25, max_prompt_tokens=2048), chosen[:20])
    if arguments.users:
        count_lists(ours, chosen[: arguments.users], arguments.k)


def count_lists(ours: Recommender, histories: Sequence[History], k: int) -> None:
    """Count the passes and tokens of searches for K items."""
    trie = ours.trie
    paths = Paths.to(trie, np.arange(trie.n_positions), vocab=False)
    found: dict[tuple[int, int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for history in histories:
        branches = Branches(ours.model, [ours.prompt(history).ids], paths)
        (request,) = ours._requests.build([history], replace(PROTOCOL, k=k))
        prior = None
        if ours.prior is not None:
            prior = PositionWeights([ours.prior.weights(history)], trie)
        first = None
        for width, fill, ahead in GRID:
            tree = _Counting(branches.view([0]))
            options = replace(ours._search.options(request), width=width, fill=fill)
            options = replace(options, ahead=ahead)
            filters = Filters([request.allowed])
            (ranking,) = search(trie, tree, k, allowed=filters, prior=prior, options=options)
            first = ranking.rows.tolist() if first is None else first
            assert ranking.rows.tolist() == first
            found[width, fill, ahead].append((len(tree.passes), sum(tree.passes), tree.ahead))
    for (width, fill, most), values in found.items():
        passes, tokens, ahead = np.mean(values, axis=0)
        print(
            f"K={k} width {width:2} fill {fill:2} ahead {most:2}: {passes:5.2f} passes, {tokens:5.1f} tokens "
            f"after the prompt, {ahead:4.1f} with it"
        )


def count_evidence(ours: Recommender, histories: Sequence[History]) -> None:
    """Count the tokens of leaving out each event, with ten of the 200 most frequent items."""
    trie, rng = ours.trie, np.random.default_rng(1)
    columns = load(DATA).interactions.columns.row
    frequent = np.argsort(-np.bincount(columns[columns >= 0], minlength=len(ours.catalog)))[:200]
    counts: dict[str, list[int]] = defaultdict(list)
    for history in histories:
        (request,) = ours._requests.build([history], PROTOCOL)
        rows = frequent[rng.permutation(200)[:10]]
        path = Paths.to(trie, trie.positions_of(rows), vocab=False).tokens
        window = history.latest(request.prompt.prompt.events).interactions
        n = len(window)
        whole = request.render(History(window))
        others = [request.render(History((*window[:i], *window[i + 1 :]))) for i in range(n)]
        counts["tokens of the prompt"].append(len(whole.ids))
        shared = [min(shared_start([whole.ids, p.ids]), len(p.ids) - 1) for p in others]
        counts["full attention"].append(
            sum(len(p.ids) - s + path for p, s in zip(others, shared, strict=True))
        )
        for recent in RECENT:
            rest = [len(p.ids) - p.by_event(recent).gathered + path for p in others]
            cuts = whole.cuts or ()
            least = [len(whole.ids) - cuts[i + 1] + path for i in range(n)]
            shorter = [r if i < n - recent else least[i] for i, r in enumerate(rest)]
            counts[f"{recent} in full"].append(sum(rest))
            counts[f"{recent} in full, if the latest events were shared"].append(sum(shorter))
    for name, values in counts.items():
        print(f"evidence, {name}: median {np.median(values):.0f}")


if __name__ == "__main__":
    main()
