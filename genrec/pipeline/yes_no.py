"""Ask the model whether a user will want an item, and compute the probability that it answers yes.

A template defines the two answers. The prompt starts with the history, which all items share. The
item and the question follow. Training uses the same token ids.
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
_MANY = 64  # the number of items to ask about in one pass
_MOST_ATTRIBUTES = 100  # maximum number of tokens for the attributes of the item, with their end


class YesNo:
    """A yes-or-no question about items of a catalog, as worded by a template.

    Attributes:
        template: the template that words the question.
        answers: the token id of each answer at the position where they diverge: yes, then no.
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
        """Check the template, and encode the parts of the question that are always the same.

        Args:
            template: a template with ``answers`` in its header.
            encoder: the encoder of the model, with the form of titles that the template uses.
            catalog: the items.
            behavior: the behavior in question, such as ``buy``.
            max_tokens: the maximum number of tokens in a question, including the history.
            max_events: the maximum number of events in a question.
            scale: the highest possible value of an event, for prompts that show values; None for
                prompts without values.

        Raises:
            PromptError: the template defines no answers, it does not print exactly one item after
                the history, or one of its answers begins with the other.
        """
        self.template, self._encoder, self._catalog = template, encoder, catalog
        self._behavior, self._scale, self.max_events = behavior, scale, max_events
        # Reserve room for the longest title, so that a history is cut equally for all items.
        self._room = max_tokens - encoder.form.max_title_tokens - len(encoder.terminator)
        self._room -= 0 if template.attributes is None else _MOST_ATTRIBUTES
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
        """Encode the two answers.

        Returns:
            The token ids of the answers' common prefix, and the first id of each answer after it.
        """
        if self.template.answers is None:
            self._fail("its header has no answers")
        assert self.template.answers is not None
        yes, no = map(self._encoder.text, self.template.answers)
        n = shared_start([yes, no])
        if n == min(len(yes), len(no)):
            self._fail(
                f"with this model's tokenizer, one of its answers ({' and '.join(self.template.answers)}) "
                "begins with the other"
            )
        return yes[:n], (yes[n], no[n])

    def _fail(self, problem: str) -> None:
        msg = (
            f"Template {self.template.name!r} cannot ask whether a user wants an item: {problem}. "
            'Expected two answers such as " yes" and " no" in the header, and exactly one {{ item }}, which '
            "follows the events, as in the shipped would_like.jinja."
        )
        raise PromptError(msg)

    def _fit(self, history: History, max_tokens: int) -> tuple[EncodedPrompt, int]:
        """Create a prompt about the first item of the catalog.

        Returns:
            The prompt, and the index of the prompt segment that contains the item.
        """
        prompt = self._encoder.fit(
            self.template,
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
        """Encode the part of the question before the item, which contains the history.

        Args:
            history: the events, oldest first. The oldest events are dropped if they do not fit.
            max_tokens: a stricter limit on the number of tokens in the whole question; None for the
                usual limit. If no event fits, the question shows no events.

        Returns:
            The token ids, and the number of events that they show.
        """
        less = 0 if max_tokens is None else self.max_tokens - max_tokens
        prompt, place = self._fit(history, min(max(self._room - less, self._least), self._room))
        return prompt.ids[: prompt.bounds[place][0]], prompt.prompt.events

    def item(self, row: int) -> Ids:
        """Encode the rest of the question for an item, up to the point where the answers differ.

        If the prompt shows the attributes of items, those of the item follow its title.
        """
        title = self._encoder.form.render(self._catalog[row].title)
        attributes = self._encode_attributes(row)
        return (*self._encoder.title(title), *attributes, *self._asked)

    def _encode_attributes(self, row: int) -> Ids:
        """Encode the line with the attributes of an item; empty if there are none to show."""
        text = self.template.write_attributes(self._catalog, row)
        if not text:
            return ()
        return (*self._encoder.text(text)[: _MOST_ATTRIBUTES - 8], *self._encoder.terminator)

    def words(self, history: History, row: int) -> str:
        """Write the history and the item as one string, which the method ``text`` can encode."""
        prompt, place = self._fit(history, self._room)
        known = replace(prompt.prompt, segments=prompt.prompt.segments[:place]).text
        form = self._encoder.form
        attributes = self.template.write_attributes(self._catalog, row)
        shown = f"{form.terminator}{attributes}" if attributes else ""
        return f"{known}{form.lead}{form.render(self._catalog[row].title)}{shown}"

    def text(self, text: str) -> Ids:
        """Encode a question about a history and an item that are given as text.

        The beginning of the text is cut off if the question is too long.
        """
        after = (*self._encoder.terminator, *self._asked)
        room = self.max_tokens - len(self._start) - len(after)
        ids = self._encoder.text(text)
        return (*self._start, *ids[max(0, len(ids) - room) :], *after)

    def chances(self, model: LanguageModel, history: History, rows: Sequence[int]) -> list[float]:
        """Compute the probability that the model answers yes, for each item.

        The probabilities of yes and no sum to 1. The model reads the history only once.

        Args:
            model: the language model to ask.
            history: the history of the user.
            rows: the catalog rows of the items.
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
