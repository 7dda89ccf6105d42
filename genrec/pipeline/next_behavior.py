"""Estimate what a user does next, and with which item: P(behavior) and P(item | behavior)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genrec.data.events import History
from genrec.prompts.encoder import shared_start
from genrec.taste.behaviors import BehaviorCounts, fuse
from genrec.types import FloatArray

if TYPE_CHECKING:
    from genrec.models.language_model import LanguageModel
    from genrec.pipeline.types import RecommendationList


@dataclass(frozen=True, slots=True)
class NextBehavior:
    """A behavior that may come next.

    Attributes:
        behavior: the behavior, such as ``buy``.
        probability: the probability that the next event has it.
        items: the most likely items if it does; None if they were not asked for.
    """

    behavior: str
    probability: float
    items: RecommendationList | None = None


_ROOT = -1  # see genrec.models.token_tree, which needs torch
_LEAST = 0.01  # a less likely behavior gets no items


def estimate(
    counts: BehaviorCounts,
    history: History,
    rank: Callable[[str], RecommendationList] | None,
    model_weight: float,
    read: Callable[[Sequence[str]], FloatArray],
) -> tuple[NextBehavior, ...]:
    """Estimate the next behavior and its items; see ``Recommender.next_behavior``.

    Args:
        counts: what all users did.
        history: the user's events.
        rank: recommends items for a behavior; None to name no items.
        model_weight: the exponent of the model's likelihood; 0 to leave it out.
        read: returns the model's log-likelihood of the verbs of given behaviors.
    """
    chances = counts.probabilities(history)
    if model_weight:
        logs = read(counts.behaviors)
        chances = fuse(chances, np.exp(logs - logs.max()), 1.0, model_weight)
    found = []
    for place in np.argsort(-chances, kind="stable").tolist():
        behavior, chance = counts.behaviors[place], float(chances[place])
        items = rank(behavior) if rank is not None and chance >= _LEAST else None
        found.append(NextBehavior(behavior, chance, items))
    return tuple(found)


def verb_logprobs(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> FloatArray:
    """Compute the model's log-likelihood of the ends of prompts that differ only in their last verb.

    The model reads what the prompts have in common once. Verbs of several tokens are likelier the fewer
    tokens they have, so the values need a weight before they are combined with counts.

    Args:
        model: the language model.
        prompts: the token ids of B prompts, one for each behavior.

    Returns:
        (B,) natural logarithms; they do not sum to 1, since the model may write other words.
    """
    # The tokens after the verb, such as the colon, are part of what is compared.
    common = min(shared_start(prompts), *(len(ids) - 1 for ids in prompts))
    tree = model.prefill_many([list(prompts[0][:common])])
    found = np.zeros(len(prompts))
    for place, ids in enumerate(prompts):
        rest = list(ids[common:])
        total = float(tree.logits.log_softmax(-1)[rest[0]])
        if len(rest) > 1:
            mark = tree.mark()
            _, logits = tree.extend([_ROOT], [rest[:-1]], every=True)
            after = logits.log_softmax(-1)
            total += float(sum(after[n, token] for n, token in enumerate(rest[1:])))
            tree.back(mark)
        found[place] = total
    return found
