"""Encode prompts and titles safely as token ids. Deals with tokenizers only, not with models.

Titles, verbs and all other text are tokenized piece by piece, so a title has the same ids wherever
it occurs. No text can become a control token: ids from the tokenizer's table of added tokens are
never produced, except for white space.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.data.titles import TitleForm
from genrec.errors import ModelError, PromptError
from genrec.keys import spell
from genrec.prompts.segments import Prompt
from genrec.prompts.template import Template

_CHUNK = 20_000  # titles tokenized at once; a million in one call would take gigabytes of memory
_FORM_FIELDS = ("case", "max_title_tokens", "lead", "terminator")  # in stored hashes: do not change


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt in the form in which the model reads it.

    Attributes:
        prompt: the prompt's segments.
        ids: all token ids in order.
        bounds: (start, stop) of each segment in ``ids``, including the lead and terminator.
        frame: the chat template's text before and after the message; empty for plain prompts.
        counted: number of tokens in a prompt that has no ids because the model reads text.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    frame: tuple[str, str] = ("", "")
    counted: int = 0

    @property
    def n_tokens(self) -> int:
        """Return the number of ids, or ``counted`` if the prompt has no ids."""
        return len(self.ids) or self.counted

    @property
    def text(self) -> str:
        """Return the text that the model reads as one string for display."""
        return f"{self.frame[0]}{self.prompt.text}{self.frame[1]}"


@dataclass(frozen=True, slots=True)
class PromptBudget:
    """The maximum size of a prompt.

    Attributes:
        tokens: maximum number of tokens in the prompt.
        events: maximum number of events from the history.
    """

    tokens: int
    events: int


class PromptEncoder(ABC):
    """An encoder of rendered prompts that shortens histories to fit a token budget.

    Attributes:
        form: the format of titles.
    """

    form: TitleForm

    @abstractmethod
    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Encode a rendered prompt."""

    def fit(
        self,
        template: Template,
        catalog: Catalog,
        history: History,
        behavior: str,
        budget: PromptBudget,
        *,
        demonstrations: Sequence[History] = (),
        scale: float | None = None,
        item: int | None = None,
    ) -> EncodedPrompt:
        """Render and encode the longest prompt that fits a budget, dropping the oldest events.

        Args:
            template: the template to render.
            catalog: the items.
            history: the events, oldest first.
            behavior: the behavior of the next event.
            budget: maximum number of tokens and of events.
            demonstrations: other users' histories, which are never shortened.
            scale: the highest possible value of an event; None hides values.
            item: catalog row of the item that an ``explain`` or ``would_like`` template is about.

        Raises:
            PromptError: even the prompt without events is too long.
        """

        def encode(n: int) -> EncodedPrompt:
            rendered = template.render(
                catalog,
                history.latest(n),
                behavior,
                form=self.form,
                demonstrations=demonstrations,
                scale=scale,
                dropped=len(history) - n,
                item=item,
            )
            return self.prompt(rendered)

        high = min(len(history), budget.events)
        best = encode(high)
        if best.n_tokens <= budget.tokens:
            return best
        best, low = encode(0), 0
        if best.n_tokens > budget.tokens:
            msg = (
                f"Even without events, the prompt has {best.n_tokens} tokens, more than the budget "
                f"of {budget.tokens}. Raise max_prompt_tokens, use fewer demonstrations, or choose "
                "another template or model."
            )
            raise PromptError(msg)
        while high - low > 1:  # low fits, high does not
            middle = (low + high) // 2
            tried = encode(middle)
            if tried.n_tokens <= budget.tokens:
                best, low = tried, middle
            else:
                high = middle
        return best


class TextEncoder(PromptEncoder):
    """An encoder for models that accept text only. It keeps prompts as text and counts tokens."""

    def __init__(self, count_tokens: Callable[[str], int], form: TitleForm) -> None:
        """Store the function that counts tokens.

        Args:
            count_tokens: function that returns the number of tokens in a text, or an upper bound on
                it.
            form: the format of titles.
        """
        self.form = form
        self._count = count_tokens

    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Count the tokens of a rendered prompt and keep it as text."""
        return EncodedPrompt(prompt, (), (), counted=self._count(prompt.text))


class Encoder(PromptEncoder):
    """An encoder of texts, titles and prompts for one tokenizer and one title format.

    Attributes:
        form: the format of titles.
        start: ids that the tokenizer puts before any text.
        terminator: ids of the text that ends a title.
    """

    def __init__(self, tokenizer: Any, form: TitleForm) -> None:
        """Wrap a transformers tokenizer.

        Raises:
            ModelError: the tokenizer has no ids for the terminator.
        """
        self.form = form
        self._tokenizer = tokenizer
        self._added = {  # without white space: line breaks and tabs are added tokens in Gemma
            int(i): t.content
            for i, t in tokenizer.added_tokens_decoder.items()
            if t.special or t.content.strip()
        }
        self._cache: dict[str, tuple[int, ...]] = {}
        self.start = self._start_ids()
        self.terminator = self.text(form.terminator)
        if not self.terminator:
            msg = (
                f"The model's tokenizer drops {form.terminator!r}, which ends titles. "
                "Expected a tokenizer that keeps it; use another model or template."
            )
            raise ModelError(msg)

    @property
    def control_ids(self) -> frozenset[int]:
        """Return the ids that the encoding of a text must not contain."""
        return frozenset(self._added)

    def _start_ids(self) -> tuple[int, ...]:
        """Find the ids that the tokenizer puts before any text, such as a begin-of-text id."""
        plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self._tokenizer("a", add_special_tokens=True)["input_ids"]
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(int(i) for i in full[:start])
        return ()

    def text(self, text: str) -> tuple[int, ...]:
        """Encode one piece of text without producing control tokens. Results are cached."""
        if text not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[text] = self._encode([text])[0]
        return self._cache[text]

    def _encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Encode texts without control tokens or start ids."""
        batch = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
        )["input_ids"]
        return [
            tuple(ids) if self._added.keys().isdisjoint(ids) else self._encode_defused(text)
            for text, ids in zip(texts, batch, strict=True)
        ]

    def _encode_defused(self, text: str) -> tuple[int, ...]:
        """Encode a text that contains the spelling of an added token.

        A space is inserted into the spelling, because ``split_special_tokens`` splits special
        tokens only, and some tokenizers also have the spelling in their plain vocabulary. Any
        remaining ids of added tokens, such as the one for unknown characters, are dropped.
        """
        for content in sorted(set(self._added.values()), key=len, reverse=True):
            if len(content) > 1:
                text = text.replace(content, f"{content[0]} {content[1:]}")
        ids = self._tokenizer([text], add_special_tokens=False, split_special_tokens=True)
        return tuple(i for i in ids["input_ids"][0] if i not in self._added)

    def title(self, rendered: str) -> tuple[int, ...]:
        """Encode the lead and a rendered title, cut to ``max_title_tokens``; append the terminator.

        No encoded title is a prefix of another one, because every title ends with the terminator,
        which occurs nowhere else in a title.
        """
        return self._terminate(self.text(f"{self.form.lead}{rendered}"))

    def _decode_title(self, title: tuple[int, ...]) -> str:
        """Decode a title that was cut, so that users see the same text as the model."""
        text = str(self._tokenizer.decode(list(title[: -len(self.terminator)])))
        return text.removeprefix(self.form.lead)

    def _terminate(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Cut a title's ids and append the terminator, which must not occur before the end."""
        body = ids[: self.form.max_title_tokens]
        size = len(self.terminator)
        while any(body[i : i + size] == self.terminator for i in range(len(body))):
            # This only happens if a tokenizer uses the terminator's ids for other characters.
            body = tuple(i for i in body if i != self.terminator[-1])
        return body + self.terminator

    def titles(
        self, catalog: Catalog, progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, ...]]:
        """Encode every title of a catalog in row order, in chunks.

        Args:
            catalog: the items.
            progress: function called with the number of titles encoded so far.

        Yields:
            The ids of each title.
        """
        rendered = [f"{self.form.lead}{self.form.render(t)}" for t in catalog.titles]
        for first in range(0, len(rendered), _CHUNK):
            for ids in self._encode(rendered[first : first + _CHUNK]):
                yield self._terminate(ids)
            if progress:
                progress(min(first + _CHUNK, len(rendered)))

    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Encode a prompt segment by segment, beginning with the tokenizer's start ids.

        Raises:
            PromptError: the prompt has no tokens, or the model lacks a chat template.
        """
        frame = self._chat_frame if prompt.chat else ("", "")
        ids = list(self._encode_trusted(frame[0]) if prompt.chat else self.start)
        bounds = []
        segments = []
        for segment in prompt.segments:
            start = len(ids)
            if segment.row is None:
                ids.extend(self.text(segment.text))
            else:
                title = self.title(segment.text)
                ids.extend(title)
                if len(title) - len(self.terminator) == self.form.max_title_tokens:
                    segment = replace(segment, text=self._decode_title(title))
            segments.append(segment)
            bounds.append((start, len(ids)))
        prompt = replace(prompt, segments=tuple(segments))
        if not ids:
            msg = (
                "The prompt has no tokens. Expected the template to have text before the target; "
                "fix the template."
            )
            raise PromptError(msg)
        ids.extend(self._encode_trusted(frame[1]))
        return EncodedPrompt(prompt, tuple(ids), tuple(bounds), frame)

    @cached_property
    def _chat_frame(self) -> tuple[str, str]:
        """Return the chat template's text before and after a user's message."""
        if not getattr(self._tokenizer, "chat_template", None):
            msg = (
                "The prompt is a chat message, but the model has no chat template. Use an instruct "
                "model, or a template with 'form: plain' such as next_item."
            )
            raise PromptError(msg)
        mark = "\ue000message\ue000"
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
        )
        before, _, after = str(text).partition(mark)
        return before, after

    def _encode_trusted(self, text: str) -> tuple[int, ...]:
        """Encode the chat template's own text, which may contain control tokens."""
        if not text:
            return ()
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain(self, text: str) -> tuple[int, ...]:
        """Encode a prompt that is given as one string, beginning with the tokenizer's start ids."""
        return (*self.start, *self._encode([text])[0])

    def message(self, text: str) -> tuple[int, ...]:
        """Encode a user's message in the model's chat template, up to the beginning of the answer.

        Raises:
            PromptError: the model has no chat template.
        """
        before, after = self._chat_frame
        return (
            *self._encode_trusted(before),
            *self._encode([text])[0],
            *self._encode_trusted(after),
        )

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of the vocabulary, the added tokens and the title format.

        Together, these determine all ids. Run folders store this hash, so it must be stable. The
        title format is therefore represented by its named fields (``keys.spell``) and not by
        ``repr``. A new class name, or a new field with its default value, does not change the hash.
        """
        form = spell(self.form, "TitleForm", _FORM_FIELDS)
        state = f"({form}, {sorted(self._added.items())!r}, {self.start!r})"
        digest = hashlib.sha256(state.encode())
        probe = "Red mug 12 pcs, 红色杯子 ☕ " + "".join(chr(c) for c in range(33, 127))
        digest.update(repr((len(self._tokenizer), self.text(probe), self.terminator)).encode())
        return digest.hexdigest()


def shared_start(sequences: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common prefix of all sequences.

    >>> shared_start([[1, 2, 3], [1, 2], [1, 2, 4]])
    2
    """
    first, last = min(map(list, sequences)), max(map(list, sequences))
    same = (a == b for a, b in zip(first, last, strict=False))
    return sum(takewhile(bool, same))
