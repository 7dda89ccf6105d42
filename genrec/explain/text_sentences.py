"""Sentences on recommended items by a model that only writes text, checked like all others.

Without logits there is no evidence, and no trie can hold the names. So the model writes the whole
sentence after the template's opening; ``claims`` refuses it where it names anything but the item
and events of the history, or says what the catalog does not. Then a plain sentence stands in.
"""

from __future__ import annotations

from collections.abc import Sequence

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.data.titles import TitleForm
from genrec.explain.claims import names, problems
from genrec.explain.sentences import MAX_TOKENS, facts_of
from genrec.explain.types import Explanation, Rejected
from genrec.models.base import GenerationOptions, TextModel
from genrec.prompts.encoder import TextEncoder
from genrec.prompts.template import Template
from genrec.text import one_line

TRIES = 3  # sentences that are written for an item before the plain one is taken
_PLAIN = {
    "en": "The model gives no probabilities, so nothing is known of what this item rests on.",
    "zh": "模型不给出概率，因此无法说明推荐该商品的依据。",
}


class TextExplainer:
    """Writes sentences with a text model, one ``explain`` template and one catalog."""

    def __init__(
        self, model: TextModel, template: Template, catalog: Catalog, form: TitleForm
    ) -> None:
        """Take what is the same for all items.

        Args:
            model: writes the sentences.
            template: an ``explain`` template.
            catalog: the items.
            form: how titles are written for the model.
        """
        self._model, self._template, self._catalog = model, template, catalog
        self._encoder = TextEncoder(model.count_tokens, form)

    def explain(self, window: History, rows: Sequence[int], behavior: str) -> list[Explanation]:
        """Explain each of the recommended items.

        Args:
            window: the events that the prompt showed.
            rows: catalog rows of the items.
            behavior: the behavior that they are recommended for.

        Raises:
            PromptError: the prompt does not fit the model.
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
            max_tokens=self._model.context - MAX_TOKENS,
            max_events=len(window),
            item=row,
        )
        facts = facts_of(self._template, self._catalog, window.interactions, row)
        options = GenerationOptions(n=TRIES, max_tokens=MAX_TOKENS, stop="\n", temperature=0.7)
        rejected: list[Rejected] = []
        for written in self._model.generate(prompt, options):
            text = one_line(f"{header['opening']}{self._encoder.form.lead}{written.text}")
            wrong = problems(text, facts)
            named = [name.lower() for name in names(text, facts)]
            if not wrong and len(set(named)) < 2:
                wrong = ("does not name both the item and an event",)
            if not wrong:
                return Explanation(text, "generated", tuple(rejected))
            rejected.append(Rejected(text, "; ".join(wrong)))
        plain = _PLAIN.get(header.get("language", "en"), _PLAIN["en"])
        return Explanation(plain, "template", tuple(rejected))
