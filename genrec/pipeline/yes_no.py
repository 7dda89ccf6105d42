"""Ask the model whether a user will want an item, and read the answer as yes or no.

A template defines both answers. The prompt starts with the history, which all items share. The item
and the question follow. Training uses the same token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.errors import PromptError
from genrec.models.language_model import LanguageModel
from genrec.models.token_tree import ROOT
from genrec.prompts.encoder import EncodedPrompt, Encoder, PromptBudget, shared_start
from genrec.prompts.template import Template

Ids = tuple[int, ...]
_MANY = 64  # number of items to ask about in one pass


class YesNo:
    """The question that a template asks about the items of one catalog, for one tokenizer.

    Attributes:
        answers: the ids of the first tokens at which the two answers differ; yes comes first.
        max_events: the maximum number of events in a question.
        max_tokens: the maximum number of tokens in a question.
    """

    def __init__(
        self,
        template: Template,
        encoder: Encoder,
        catalog: Catalog,
        behavior: str,
        *,
        max_tokens: int = 2048,
        max_events: int = 25,
        scale: float | None = None,
    ) -> None:
        """Prepare the question.

        Args:
            template: a template with ``answers`` in its header.
            encoder: the model's encoder, with the template's form of titles.
            catalog: the items.
            behavior: the behavior in question, such as ``buy``.
            max_tokens: the maximum number of tokens in a question, including the history.
            max_events: the maximum number of events in a question.
            scale: the highest possible event value, for prompts that show values; if None, prompts
                show no values.

        Raises:
            PromptError: the template defines no answers, the template prints no item, or the
                token ids of one answer start with those of the other.
        """
        self._template, self._encoder, self._catalog = template, encoder, catalog
        self._behavior, self._scale, self.max_events = behavior, scale, max_events
        # Reserve room for the longest title, so that a history is cut equally for all items.
        self._room = max_tokens - encoder.form.max_title_tokens - len(encoder.terminator)
        self.max_tokens = max_tokens
        said, self.answers = self._answers()
        self._after: Ids = ()
        prompt, place = self._fit(History(), self._room)
        self._least = len(prompt.ids)
        before, after = prompt.bounds[place]
        self._after = prompt.ids[after:]
        self._asked = (*self._after, *said)
        self._start = prompt.ids[: prompt.bounds[0][0]]
        if not before:
            self._fail("no text stands before the item")

    def _answers(self) -> tuple[Ids, tuple[int, int]]:
        """Return the ids that both answers start with, if any, and the first two that differ."""
        if self._template.answers is None:
            self._fail("its header has no answers")
        assert self._template.answers is not None
        yes, no = map(self._encoder.text, self._template.answers)
        n = shared_start([yes, no])
        if n == min(len(yes), len(no)):
            self._fail(
                f"with this model's tokenizer one of its answers, {' and '.join(self._template.answers)}, "
                "begins with the other"
            )
        return yes[:n], (yes[n], no[n])

    def _fail(self, problem: str) -> None:
        msg = (
            f"Template {self._template.name!r} cannot ask whether somebody wants an item: {problem}. "
            'Expected answers such as " yes", " no" in the header, and the events before one '
            "{{ item }}, as in the shipped would_like.jinja."
        )
        raise PromptError(msg)

    def _fit(self, history: History, max_tokens: int) -> tuple[EncodedPrompt, int]:
        """Return a prompt about the first catalog item, and the index of that item's segment."""
        prompt = self._encoder.fit(
            self._template,
            self._catalog,
            history,
            self._behavior,
            PromptBudget(max(max_tokens, 1), self.max_events),
            scale=self._scale,
            item=0,
        )
        segments = prompt.prompt.segments
        places = [i for i, s in enumerate(segments) if s.row is not None and s.event is None]
        if len(places) != 1:
            self._fail(f"it prints {len(places) or 'no'} items besides the history")
        if self._after and prompt.ids[prompt.bounds[places[0]][1] :] != self._after:
            self._fail("the text after the item depends on the history")
        return prompt, places[0]

    def known(self, history: History, max_tokens: int | None = None) -> tuple[Ids, int]:
        """Return the token ids before the item, and the number of events they contain.

        Args:
            history: the events, oldest first; the oldest are dropped if they do not fit.
            max_tokens: a stricter limit on the number of tokens in the whole question. If no event
                fits, the question shows no events.
        """
        less = 0 if max_tokens is None else self.max_tokens - max_tokens
        prompt, place = self._fit(history, min(max(self._room - less, self._least), self._room))
        return prompt.ids[: prompt.bounds[place][0]], prompt.prompt.events

    def item(self, row: int) -> Ids:
        """Return the token ids from the item's title up to the point where the answers differ."""
        title = self._encoder.form.render(self._catalog[row].title)
        return (*self._encoder.title(title), *self._asked)

    def words(self, history: History, row: int) -> str:
        """Return the history and the item as one string, which can be passed to ``text``."""
        prompt, place = self._fit(history, self._room)
        known = replace(prompt.prompt, segments=prompt.prompt.segments[:place]).text
        form = self._encoder.form
        return f"{known}{form.lead}{form.render(self._catalog[row].title)}"

    def text(self, text: str) -> Ids:
        """Return the token ids of a question about a text. If it is too long, its start is cut."""
        after = (*self._encoder.terminator, *self._asked)
        room = self.max_tokens - len(self._start) - len(after)
        ids = self._encoder.text(text)
        return (*self._start, *ids[max(0, len(ids) - room) :], *after)

    def chances(self, model: LanguageModel, history: History, rows: Sequence[int]) -> list[float]:
        """Return the probability of yes, as opposed to no, for each catalog row.

        The history is read only once.
        """
        known, _ = self.known(history)
        prefix = model.prefix(known[:-1]) if len(rows) > _MANY else None
        found: list[float] = []
        for first in range(0, len(rows), _MANY):
            runs = [self.item(row) for row in rows[first : first + _MANY]]
            tree = model.prefill_many([known], prefix)
            _, outputs = tree.grow([0] * len(runs), [ROOT] * len(runs), runs)
            source = np.repeat(np.arange(len(runs)), 2)
            logits = outputs.at(source, np.tile(np.array(self.answers), len(runs)))
            yes, no = logits.reshape(-1, 2).T
            found += np.exp(-np.logaddexp(0.0, no - yes)).tolist()
        return found
