"""Explain items with a model that only generates text, and check its sentences.

Such a model returns no logits, so evidence cannot be measured, and no trie can restrict the titles
that it names. The model writes the whole sentence after the template's opening. The module
``claims`` rejects the sentence if it names anything except the item and events in the history, or
if it claims more than the catalog supports. If every sentence is rejected, a fixed sentence is
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.data.titles import TitleForm
from genrec.explain.claims import find_names, find_problems
from genrec.explain.sentences import collect_facts
from genrec.explain.types import Explanation, Rejected
from genrec.explain.writer import MAX_TOKENS
from genrec.models.base import GenerationOptions, TextModel, generate_texts
from genrec.prompts.encoder import PromptBudget, TextEncoder
from genrec.prompts.template import Template
from genrec.text import one_line

TRIES = 3  # the number of sentences that the model writes for an item
_PLAIN = {
    "en": "The model reports no probabilities, so there is no evidence for this item.",
    "zh": "模型不给出概率，因此无法说明推荐该商品的依据。",
}


@dataclass(frozen=True, slots=True)
class _Text:
    """A prompt for a model that reads text instead of token ids."""

    text: str
    ids: tuple[int, ...] = ()


class TextExplainer:
    """Explains recommended items with sentences from a model that only generates text."""

    def __init__(
        self, model: TextModel, template: Template, catalog: Catalog, form: TitleForm
    ) -> None:
        """Store the model, the template and the catalog.

        Args:
            model: the model that writes the sentences.
            template: an ``explain`` template.
            catalog: the items.
            form: the format of the titles that the model reads.
        """
        self._model, self._template, self._catalog = model, template, catalog
        self._encoder = TextEncoder(model.count_tokens, form)

    def explain(self, window: History, rows: Sequence[int], behavior: str) -> list[Explanation]:
        """Explain each of the given items in a sentence.

        Args:
            window: the events that the prompt showed.
            rows: the catalog rows of the items.
            behavior: the behavior for which the items are recommended.

        Raises:
            PromptError: the prompt does not fit the model's context.
        """
        return [self._explain(window, row, behavior) for row in rows]

    def _explain(self, window: History, row: int, behavior: str) -> Explanation:
        header = self._template.header
        if not any(e.item_id is not None for e in window.interactions):
            return Explanation(header["none"], "template")
        prompt = self._encoder.fit(
            self._template,
            self._catalog,
            window,
            behavior,
            PromptBudget(self._model.context - MAX_TOKENS, len(window)),
            item=row,
        )
        facts = collect_facts(self._template, self._catalog, window.interactions, row)
        options = GenerationOptions(n=TRIES, max_tokens=MAX_TOKENS, stop="\n", temperature=0.7)
        rejected: list[Rejected] = []
        lead = self._encoder.form.lead  # the quotation mark before the first title
        for written in generate_texts(self._model, _Text(f"{prompt.text}{lead}"), options):
            rest = written.text.lstrip().removeprefix(lead.strip())  # a model may write it again
            text = one_line(f"{header['opening']}{lead}{rest}")
            problems = find_problems(text, facts)
            named = {name.lower() for name in find_names(text, facts)}
            if not problems and len(named) < 2:
                problems = ("does not name both the item and an event",)
            if not problems:
                return Explanation(text, "generated", tuple(rejected))
            rejected.append(Rejected(text, "; ".join(problems)))
        plain = _PLAIN.get(header.get("language", "en"), _PLAIN["en"])
        return Explanation(plain, "template", tuple(rejected))
