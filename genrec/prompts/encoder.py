"""From prompts and titles to token ids, safely. Knows a tokenizer, nothing of models.

Titles, verbs and all other text are tokenised piece by piece, so that a title has the same ids
wherever it stands, and no text can become a control token: none of the ids in the tokenizer's
table of added tokens ever comes out, plain white space apart.
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

_CHUNK = 20_000  # titles tokenised at once; a million in one call would take gigabytes
_FORM_FIELDS = ("case", "max_title_tokens", "lead", "terminator")  # of every hash so far; frozen


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model reads it.

    Attributes:
        prompt: the segments.
        ids: all token ids in order.
        bounds: for each segment its (start, stop) in ids, lead and terminator included.
        frame: what a chat template writes before and after the message; empty for plain prompts.
        counted: the number of tokens, for a model that reads text and has no ids.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    frame: tuple[str, str] = ("", "")
    counted: int = 0

    @property
    def n_tokens(self) -> int:
        """The number of tokens: of the ids, or as the model counted them."""
        return len(self.ids) or self.counted

    @property
    def text(self) -> str:
        """What the model reads, as one string for people."""
        return f"{self.frame[0]}{self.prompt.text}{self.frame[1]}"


class PromptEncoder(ABC):
    """Turns rendered prompts into what a model reads, and cuts histories to a budget of tokens.

    Attributes:
        form: how titles are written.
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
        *,
        max_tokens: int,
        max_events: int,
        demonstrations: Sequence[History] = (),
        scale: float | None = None,
        item: int | None = None,
    ) -> EncodedPrompt:
        """The longest prompt within a budget: whole events are cut, the oldest first.

        Args:
            template: what to render.
            catalog: the items.
            history: the events, oldest first.
            behavior: what the next event will be.
            max_tokens: the most ids the prompt may have.
            max_events: the most events of the history it may have.
            demonstrations: other users' histories; they are never cut.
            scale: the highest value that an event can have, to show values; None shows none.
            item: the catalog row that an ``explain`` or ``would_like`` template asks about.

        Raises:
            PromptError: not even the prompt without events fits.
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

        high = min(len(history), max_events)
        best = encode(high)
        if best.n_tokens <= max_tokens:
            return best
        best, low = encode(0), 0
        if best.n_tokens > max_tokens:
            msg = (
                f"The prompt without any event has {best.n_tokens} tokens, more than the budget of "
                f"{max_tokens}. Raise max_prompt_tokens, or use fewer demonstrations or another "
                "template or model."
            )
            raise PromptError(msg)
        while high - low > 1:  # low fits, high does not
            middle = (low + high) // 2
            tried = encode(middle)
            if tried.n_tokens <= max_tokens:
                best, low = tried, middle
            else:
                high = middle
        return best


class TextEncoder(PromptEncoder):
    """Leaves prompts as text, for models that take no token ids; only counts their tokens."""

    def __init__(self, count_tokens: Callable[[str], int], form: TitleForm) -> None:
        """Take the model's own count of tokens.

        Args:
            count_tokens: counts, or estimates from above, the tokens of a text.
            form: how titles are written.
        """
        self.form = form
        self._count = count_tokens

    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Return the prompt as text with its number of tokens."""
        return EncodedPrompt(prompt, (), (), counted=self._count(prompt.text))


class Encoder(PromptEncoder):
    """Encodes text, titles and prompts with one tokenizer and one title form."""

    def __init__(self, tokenizer: Any, form: TitleForm) -> None:
        """Wraps a transformers tokenizer.

        Raises:
            ModelError: the tokenizer cannot write the terminator.
        """
        self.form = form
        self._tokenizer = tokenizer
        self._added = {  # but for line breaks and tabs, which are added tokens in Gemma
            int(i): t.content
            for i, t in tokenizer.added_tokens_decoder.items()
            if t.special or t.content.strip()
        }
        self._cache: dict[str, tuple[int, ...]] = {}
        self.start = self._start_ids()
        self.terminator = self.text(form.terminator)
        if not self.terminator:
            msg = (
                f"The model's tokenizer drops {form.terminator!r}, so no title could be ended. "
                "Expected a tokenizer that keeps it; choose another model or template."
            )
            raise ModelError(msg)

    @property
    def control_ids(self) -> frozenset[int]:
        """The ids that no text may have."""
        return frozenset(self._added)

    def _start_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before any text (a begin-of-text id, or nothing)."""
        plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self._tokenizer("a", add_special_tokens=True)["input_ids"]
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(int(i) for i in full[:start])
        return ()

    def text(self, text: str) -> tuple[int, ...]:
        """The ids of one piece of text, cached; never an added token's that could be a control token."""
        if text not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[text] = self._encode([text])[0]
        return self._cache[text]

    def _encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        batch = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
        )["input_ids"]
        return [
            tuple(ids) if self._added.keys().isdisjoint(ids) else self._defused(text)
            for text, ids in zip(texts, batch, strict=True)
        ]

    def _defused(self, text: str) -> tuple[int, ...]:
        """Encodes a text that spells an added token: the spelling is broken by a space.

        ``split_special_tokens`` splits the special ones only, and some tokenizers have the
        spelling in their plain vocabulary too. An id that still is an added one (an unknown
        character's, say) is left out.
        """
        for content in sorted(set(self._added.values()), key=len, reverse=True):
            if len(content) > 1:
                text = text.replace(content, f"{content[0]} {content[1:]}")
        ids = self._tokenizer([text], add_special_tokens=False, split_special_tokens=True)
        return tuple(i for i in ids["input_ids"][0] if i not in self._added)

    def title(self, rendered: str) -> tuple[int, ...]:
        """The ids of a rendered title with its lead, cut to ``max_title_tokens``, and terminator.

        Sequences of different titles are never prefixes of one another: the terminator stands at
        the end of each and inside none.
        """
        return self._terminated(self.text(f"{self.form.lead}{rendered}"))

    def _read(self, title: tuple[int, ...]) -> str:
        """A cut title as text, so that what is shown is what is read."""
        text = str(self._tokenizer.decode(list(title[: -len(self.terminator)])))
        return text.removeprefix(self.form.lead)

    def _terminated(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        body = ids[: self.form.max_title_tokens]
        size = len(self.terminator)
        while any(body[i : i + size] == self.terminator for i in range(len(body))):
            # Only where a tokenizer writes other characters with the terminator's ids.
            body = tuple(i for i in body if i != self.terminator[-1])
        return body + self.terminator

    def titles(
        self, catalog: Catalog, progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, ...]]:
        """The ids of every title of a catalog, by row, tokenised in chunks.

        Args:
            catalog: the items.
            progress: called with the number of titles done.
        """
        rendered = [f"{self.form.lead}{self.form.render(t)}" for t in catalog.titles]
        for first in range(0, len(rendered), _CHUNK):
            for ids in self._encode(rendered[first : first + _CHUNK]):
                yield self._terminated(ids)
            if progress:
                progress(min(first + _CHUNK, len(rendered)))

    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """The ids of a prompt, segment by segment, after the tokenizer's own start ids."""
        frame = self._chat_frame if prompt.chat else ("", "")
        ids = list(self._trusted(frame[0]) if prompt.chat else self.start)
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
                    segment = replace(segment, text=self._read(title))
            segments.append(segment)
            bounds.append((start, len(ids)))
        prompt = replace(prompt, segments=tuple(segments))
        if not ids:
            msg = "The prompt has no tokens. Expected a template with text before the target."
            raise PromptError(msg)
        ids.extend(self._trusted(frame[1]))
        return EncodedPrompt(prompt, tuple(ids), tuple(bounds), frame)

    @cached_property
    def _chat_frame(self) -> tuple[str, str]:
        """What the model's chat template writes before and after a user's message."""
        if not getattr(self._tokenizer, "chat_template", None):
            msg = (
                "The template is a chat message, but the model has no chat template. Expected an "
                "instruct model; choose one, or a template of form plain such as next_item."
            )
            raise PromptError(msg)
        mark = "\ue000message\ue000"
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
        )
        before, _, after = str(text).partition(mark)
        return before, after

    def _trusted(self, text: str) -> tuple[int, ...]:
        """The ids of a chat template's own text, control tokens and all."""
        if not text:
            return ()
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain(self, text: str) -> tuple[int, ...]:
        """The ids of a whole prompt given as one text, after the tokenizer's own start ids."""
        return (*self.start, *self._encode([text])[0])

    def message(self, text: str) -> tuple[int, ...]:
        """The ids of a user's message in the model's chat template, up to the answer.

        Raises:
            PromptError: the model has no chat template.
        """
        before, after = self._chat_frame
        return (*self._trusted(before), *self._encode([text])[0], *self._trusted(after))

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of all that determines ids: vocabulary, added tokens, title form.

        Run folders store it, so the title form goes in as named fields (``keys.spell``), never as
        ``repr``: a new class name or a new field at its default leaves every hash as it was.
        """
        form = spell(self.form, "TitleForm", _FORM_FIELDS)
        state = f"({form}, {sorted(self._added.items())!r}, {self.start!r})"
        digest = hashlib.sha256(state.encode())
        probe = "Red mug 12 pcs, 红色杯子 ☕ " + "".join(chr(c) for c in range(33, 127))
        digest.update(repr((len(self._tokenizer), self.text(probe), self.terminator)).encode())
        return digest.hexdigest()


def shared_start(sequences: Sequence[Sequence[int]]) -> int:
    """How many first ids all sequences have in common.

    >>> shared_start([[1, 2, 3], [1, 2], [1, 2, 4]])
    2
    """
    first, last = min(map(list, sequences)), max(map(list, sequences))
    same = (a == b for a, b in zip(first, last, strict=False))
    return sum(takewhile(bool, same))
