"""Writing: the decoder match, which lets the model write freely and looks for items in the texts.

Knows a model, and matched titles; nothing of tries and certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genrec.config import Settings
from genrec.data.catalog import Catalog
from genrec.matching.matcher import Match, TextMatcher
from genrec.pipeline.types import Recommendation
from genrec.prompts.encoder import Encoder
from genrec.types import BoolArray

if TYPE_CHECKING:
    from genrec.models.generation import Generated
    from genrec.models.language_model import LanguageModel


def written(
    model: LanguageModel, encoder: Encoder, settings: Settings, prompt: Sequence[int]
) -> list[Generated]:
    """What the model writes after a prompt; see ``Recommender.generate``."""
    from genrec.models.generation import Ending, beams, sample

    tokenizer = model.tokenizer
    ending = Ending(
        decode=lambda ids: str(tokenizer.decode(list(ids))),
        terminator=encoder.form.terminator,
        eos=model.ends,
        banned=tuple(encoder.control_ids),
        max_tokens=min(settings.max_title_tokens, model.context - len(prompt)),
    )
    tree = model.prefill(prompt)
    if settings.n_samples:
        n, temperature = settings.n_samples, settings.temperature
        return sample(tree, ending, n=n, temperature=temperature, seed=settings.seed)
    return beams(tree, ending, n=settings.beam_size or 20)


def named(
    texts: Sequence[Generated],
    catalog: Catalog,
    matcher: TextMatcher,
    allowed: BoolArray,
    size: int,
    k: int,
    *,
    drawn: bool,
) -> tuple[tuple[Recommendation, ...], tuple[str, ...]]:
    """The k items that texts name, by how much was written of each, and what is to be said.

    Args:
        texts: what was written.
        catalog: the items.
        matcher: finds them.
        allowed: (N,) which may be returned.
        size: how many items these are.
        k: how many at most.
        drawn: whether each text counts the same, as a draw, or by its probability.
    """
    found: dict[int, tuple[float, list[str], Match]] = {}
    nothing = already = 0
    for text in sorted(texts, key=lambda g: (-g.logprob, g.text)):
        match = matcher.match(text.text)
        rows = [r for r in match.rows if allowed[r]]
        nothing += not match.rows
        already += bool(match.rows) and not rows
        weight = 1 / len(texts) if drawn else float(np.exp(text.logprob))
        for row in rows:
            score, said, first = found.get(row, (0.0, [], match))
            new = text.text.strip()
            said = said if new in said else [*said, new]
            found[row] = (score + weight / len(match.rows), said, first)
    best = sorted(found.items(), key=lambda pair: (-pair[1][0], pair[0]))[:k]
    notes = list(matcher.notes)
    if len(best) < min(k, size):
        more = "n_samples" if drawn else "beam_size"
        notes.append(
            f"{len(best)} of {k} items: of {len(texts)} texts that the model wrote, "
            f"{nothing} matched no item and {already} an item of the history. Expected fewer "
            f"than k with the decoder match; raise {more}, or use the decoder trie."
        )
    items = tuple(
        Recommendation(
            rank,
            catalog[row].item_id,
            catalog[row].title,
            None,
            score,
            tuple(said),
            match.how,
            round(match.similarity, 4),
        )
        for rank, (row, (score, said, match)) in enumerate(best, start=1)
    )
    return items, tuple(notes)
