"""Liking: whether somebody will want one item, answered by the model with yes or no.

Knows a template that names both answers, and how it is encoded: what is known of somebody, which
all items share, and then the item with the question on it. The same ids serve training.
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
from genrec.prompts.encoder import EncodedPrompt, Encoder, shared_start
from genrec.prompts.template import Template

Ids = tuple[int, ...]
_MANY = 64  # items asked about in one pass


class YesNo:
    """One template's question about items, for one tokenizer and one catalog.

    Attributes:
        answers: the tokens that tell yes from no, in this order.
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
        """Prepares the question.

        Args:
            template: with ``answers`` in its header.
            encoder: of the model, with the template's form of titles.
            catalog: the items.
            behavior: what is asked, such as ``buy``.
            max_tokens: the most tokens of a question with its history.
            max_events: the most events of a history in it.
            scale: the highest value that an event can have, to show values; None shows none.

        Raises:
            PromptError: the template names no answers or prints no item, or this tokenizer cannot
                tell the answers apart.
        """
        self._template, self._encoder, self._catalog = template, encoder, catalog
        self._behavior, self._scale, self.max_events = behavior, scale, max_events
        # An item's title takes no more than this, so that a history is cut alike for all items.
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
        """The ids that both answers begin with (a word mark, say), and the two that differ."""
        if self._template.answers is None:
            self._fail("its header has no answers")
        assert self._template.answers is not None
        yes, no = map(self._encoder.text, self._template.answers)
        n = shared_start([yes, no])
        if n == min(len(yes), len(no)):
            self._fail(
                f"to this model's tokenizer one of its answers {' and '.join(self._template.answers)} "
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
        """A prompt on the catalog's first item, and which of its segments that is."""
        prompt = self._encoder.fit(
            self._template,
            self._catalog,
            history,
            self._behavior,
            max_tokens=max(max_tokens, 1),
            max_events=self.max_events,
            scale=self._scale,
            item=0,
        )
        segments = prompt.prompt.segments
        places = [i for i, s in enumerate(segments) if s.row is not None and s.event is None]
        if len(places) != 1:
            self._fail(f"it prints {len(places) or 'no'} items beside the history")
        if self._after and prompt.ids[prompt.bounds[places[0]][1] :] != self._after:
            self._fail("what it says after the item depends on the history")
        return prompt, places[0]

    def known(self, history: History, max_tokens: int | None = None) -> tuple[Ids, int]:
        """What stands before the item: its ids, and how many events of the history are in it.

        Args:
            history: the events, oldest first; the oldest are left out where they do not fit.
            max_tokens: of the whole question, where that is less than this question's own; no
                event may fit then, but there is always a question.
        """
        less = 0 if max_tokens is None else self.max_tokens - max_tokens
        prompt, place = self._fit(history, min(max(self._room - less, self._least), self._room))
        return prompt.ids[: prompt.bounds[place][0]], prompt.prompt.events

    def item(self, row: int) -> Ids:
        """An item's title and what follows, up to where the answers differ."""
        title = self._encoder.form.render(self._catalog[row].title)
        return (*self._encoder.title(title), *self._asked)

    def words(self, history: History, row: int) -> str:
        """History and item as one text, which ``text`` makes a question of."""
        prompt, place = self._fit(history, self._room)
        known = replace(prompt.prompt, segments=prompt.prompt.segments[:place]).text
        form = self._encoder.form
        return f"{known}{form.lead}{form.render(self._catalog[row].title)}"

    def text(self, text: str) -> Ids:
        """A whole question whose history and item are a text; a long one loses its beginning."""
        after = (*self._encoder.terminator, *self._asked)
        room = self.max_tokens - len(self._start) - len(after)
        ids = self._encoder.text(text)
        return (*self._start, *ids[max(0, len(ids) - room) :], *after)

    def chances(self, model: LanguageModel, history: History, rows: Sequence[int]) -> list[float]:
        """The probability of yes against no for each catalog row; the history is read once."""
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
