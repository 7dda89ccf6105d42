"""Answer requests with the decoder ``match``, which generates free text and finds items in it.

This needs a model that generates text and a matcher, but no trie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.config import Settings
from genrec.data.catalog import Catalog
from genrec.data.groups import Groups
from genrec.errors import RequestError
from genrec.matching.matcher import Match, TextMatcher
from genrec.models.base import Generated, GenerationOptions, TextModel, generate_texts
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.request import Request
from genrec.pipeline.rerank import capped
from genrec.pipeline.types import Recommendation
from genrec.prompts.encoder import EncodedPrompt
from genrec.types import BoolArray

BEAMS = 20  # the number of texts in a beam search if the settings do not give a number


@dataclass(frozen=True, slots=True)
class Named:
    """The items found in generated texts.

    Attributes:
        items: the items that were found, best first.
        notes: remarks for the user, for example about texts in which no item was found.
    """

    items: tuple[Recommendation, ...]
    notes: tuple[str, ...]


class FreeText:
    """An object that generates texts for requests and finds catalog items in them."""

    def __init__(
        self, model: TextModel, settings: Settings, index: CatalogIndex, banned: tuple[int, ...]
    ) -> None:
        """Store the data that all requests share.

        Args:
            model: the model that generates text.
            settings: the settings of the recommender.
            index: the catalog index.
            banned: the ids of tokens that must not be generated, for models that use token ids.
        """
        self._model, self._settings, self._index = model, settings, index
        self._banned = banned

    def write(self, prompt: EncodedPrompt) -> list[Generated]:
        """Generate texts that continue a prompt; see ``Recommender.generate``."""
        settings = self._settings
        drawn = settings.n_samples > 0
        options = GenerationOptions(
            n=settings.n_samples if drawn else settings.beam_size or BEAMS,
            max_tokens=settings.max_title_tokens,
            stop=prompt.prompt.terminator,
            temperature=settings.temperature if drawn else 0.0,
            seed=settings.seed,
            banned=self._banned,
        )
        return generate_texts(self._model, prompt, options)

    def name_items(self, request: Request, matcher: TextMatcher) -> Named:
        """Generate texts for a request, and find the items that they name.

        Raises:
            RequestError: an option of the request does not work with this decoder.
        """
        options, k = request.options, int(request.options.k)
        if options.min_probability or options.chooses:
            msg = (
                "min_probability, per_title, caps and diversity do not work with decoder='match', which "
                "gives no probabilities. Leave them out, or use decoder='trie'."
            )
            raise RequestError(msg)
        return find_items(
            self.write(request.prompt),
            self._index.catalog,
            matcher,
            self._index.mask(request.allowed, request.order),
            k,
            drawn=bool(self._settings.n_samples),
            groups=self._index.groups if options.per_group else None,
            per_group=options.per_group or k,
        )


def find_items(
    texts: Sequence[Generated],
    catalog: Catalog,
    matcher: TextMatcher,
    allowed: BoolArray,
    k: int,
    *,
    drawn: bool,
    groups: Groups | None = None,
    per_group: int = 1,
) -> Named:
    """Find at most k items in generated texts, ranked by the share of texts that name them.

    Args:
        texts: the generated texts.
        catalog: the catalog of N items.
        matcher: the matcher that finds the titles that a text names.
        allowed: (N,) a mask of the items that may be returned.
        k: the maximum number of items to find.
        drawn: True if the texts are samples, which all have the same weight. Otherwise, texts are
            weighted by their probability.
        groups: the groups of variants of one product; None to set no limit for them.
        per_group: the maximum number of items in the same group, at least 1.
    """
    found: dict[int, tuple[float, list[str], Match]] = {}
    nothing = already = 0
    for text in sorted(texts, key=lambda g: (-_known(g), g.text)):
        match = matcher.match(text.text)
        rows = [r for r in match.rows if allowed[r]]
        nothing += not match.rows
        already += bool(match.rows) and not rows
        weight = 1 / len(texts) if drawn else float(np.exp(_known(text)))
        for row in rows:
            score, said, first = found.get(row, (0.0, [], match))
            new = text.text.strip()
            said = said if new in said else [*said, new]
            found[row] = (score + weight / len(match.rows), said, first)
    best = sorted(found.items(), key=lambda pair: (-pair[1][0], pair[0]))
    if groups is not None:
        values = groups.values(np.array([row for row, _ in best], dtype=np.int64))
        best = [best[place] for place in capped(values, k, per_group)]
    best = best[:k]
    notes = list(matcher.notes)
    if len(best) < min(k, int(allowed.sum())):
        more = "n_samples" if drawn else "beam_size"
        notes.append(
            f"The list has {len(best)} of {k} items. Of {len(texts)} texts that the model wrote, "
            f"{nothing} matched no item, and {already} matched only excluded items. With the decoder "
            f"match, this is normal. To get more items, raise {more}, or use the decoder trie."
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
    return Named(items, tuple(notes))


def _known(text: Generated) -> float:
    """Return the log-probability of a text, or 0 if the model did not report one."""
    return 0.0 if np.isnan(text.logprob) else text.logprob
