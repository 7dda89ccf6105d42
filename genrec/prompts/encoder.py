"""Encode prompts and titles as token ids, so that no text can act as a control token.

Titles, verbs and all other pieces of text are tokenized separately, so a title has the same ids
wherever it occurs. A text never yields an id from the tokenizer's table of added tokens, which
includes all control tokens. Only added tokens that consist of white space are allowed. This module
deals with tokenizers only, not with models.
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
from genrec.errors import ModelError, PromptError, SettingsError
from genrec.keys import spell
from genrec.models.block_prompt import BlockPrompt
from genrec.prompts.segments import Prompt
from genrec.prompts.template import Template

_CHUNK = 20_000  # number of titles tokenized at once; a million would take gigabytes of memory
# Stored hashes contain these field names in this order, so do not change them.
_FORM_FIELDS = ("case", "max_title_tokens", "lead", "terminator")


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt in the form that the model accepts.

    Attributes:
        prompt: the rendered prompt, as a list of segments.
        ids: all token ids in order; empty if the model accepts text only.
        bounds: for each segment, the indices in ``ids`` at which it starts and stops, including the
            text before and after a title.
        frame: the text that the chat template puts before and after the message; two empty strings
            for a prompt without a chat template.
        counted: number of tokens in a prompt without ids.
        cuts: the indices in ``ids`` at which each shown event begins and at which the last one
            ends. None if the events cannot be separated, and empty if there are none.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    frame: tuple[str, str] = ("", "")
    counted: int = 0
    cuts: tuple[int, ...] | None = None

    @property
    def n_tokens(self) -> int:
        """Return the number of tokens in the prompt."""
        return len(self.ids) or self.counted

    @property
    def text(self) -> str:
        """Return the prompt, including the chat template's text, as one string for display."""
        return f"{self.frame[0]}{self.prompt.text}{self.frame[1]}"

    def by_event(self, recent: int) -> BlockPrompt:
        """Divide the prompt into the blocks of ``attention="by_event"``.

        Args:
            recent: number of the latest events that are not read by themselves.

        Raises:
            SettingsError: the events cannot be separated, or nothing precedes the first one.
        """
        if self.cuts is None or (self.cuts and not self.cuts[0]):
            msg = (
                "attention='by_event' does not work with this prompt template. Expected a template "
                "with some text before the first event and with each event on lines of its own, "
                "without 'events: joined' in its header, such as next_item; or use attention='full'."
            )
            raise SettingsError(msg)
        head, stops = (self.cuts[0], self.cuts[1:]) if self.cuts else (0, ())
        stops = stops[: max(len(stops) - recent, 0)]
        stops = tuple(stop for stop in stops if stop < len(self.ids))  # something must follow them
        free = self.prompt.free[: len(stops) + 1] or (False,)
        return BlockPrompt(self.ids, head, stops, tuple(not written for written in free))


@dataclass(frozen=True, slots=True)
class PromptBudget:
    """The maximum size of a prompt.

    Attributes:
        tokens: maximum number of tokens in the prompt.
        events: maximum number of events from the user's history in the prompt.
        describe: a function that describes the events that are left out in one line, which the prompt
            shows instead of them; None to show nothing instead.
    """

    tokens: int
    events: int
    describe: Callable[[History], str] | None = None


class PromptEncoder(ABC):
    """The base class of encoders. It can shorten a history until its prompt fits a budget.

    Attributes:
        form: the format in which titles are written.
    """

    form: TitleForm

    @abstractmethod
    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Convert a rendered prompt to the form that the model accepts."""

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
        """Render and encode a prompt with as many of the latest events as the budget allows.

        Args:
            template: the template to render.
            catalog: the items.
            history: the user's events, oldest first. The oldest events are left out if necessary.
            behavior: the behavior of the next event, such as ``buy``.
            budget: maximum number of tokens and of events.
            demonstrations: histories of other users to show as examples; these are never shortened.
            scale: the highest possible value of an event, such as the highest rating; None to hide
                values.
            item: catalog row of the item that an ``explain`` or ``would_like`` template is about;
                None for other templates.

        Raises:
            PromptError: the prompt is too long even without any events.
        """

        def encode(n: int) -> EncodedPrompt:
            older, window = len(history) - n, history.latest(n)
            if budget.describe is not None and older:
                told = budget.describe(history.with_events(history.interactions[:older]))
                window = replace(window, earlier=told)
            rendered = template.render(
                catalog,
                window,
                behavior,
                form=self.form,
                demonstrations=demonstrations,
                scale=scale,
                dropped=older,
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
        while high - low > 1:  # ``low`` events fit, but ``high`` events do not
            middle = (low + high) // 2
            tried = encode(middle)
            if tried.n_tokens <= budget.tokens:
                best, low = tried, middle
            else:
                high = middle
        return best


class TextEncoder(PromptEncoder):
    """An encoder for models that accept only text. It counts tokens but produces no token ids.

    Titles are encoded as bytes, so that lists which need no model can be searched in a trie.
    """

    def __init__(self, count_tokens: Callable[[str], int], form: TitleForm) -> None:
        """Store the function that counts tokens.

        Args:
            count_tokens: function that returns the number of tokens in a text, or an upper bound on
                it.
            form: the format in which titles are written.
        """
        self.form = form
        self._count = count_tokens

    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Count the tokens of a rendered prompt and return it without token ids."""
        return EncodedPrompt(prompt, (), (), counted=self._count(prompt.text))

    def titles(self, catalog: Catalog) -> Iterator[tuple[int, ...]]:
        """Yield the UTF-8 bytes of each title with its terminator, in the order of the catalog's rows."""
        for title in catalog.titles:
            yield self.title(self.form.render(title))

    def title(self, rendered: str) -> tuple[int, ...]:
        """Return the UTF-8 bytes of a rendered title with its terminator."""
        return tuple(f"{rendered}{self.form.terminator}".encode())

    @property
    def hash(self) -> str:
        """Return a SHA-256 hash in hexadecimal that identifies the format of titles."""
        form = spell(self.form, "TitleForm", _FORM_FIELDS)
        return hashlib.sha256(f"bytes {form}".encode()).hexdigest()

    @property
    def digest(self) -> str:
        """Return what determines the bytes of titles."""
        return f"{self.hash} {self.form!r}"


class Encoder(PromptEncoder):
    """An encoder that converts texts, titles and prompts to the token ids of one tokenizer.

    Attributes:
        form: the format in which titles are written.
        start: token ids that the tokenizer puts before every text, such as a begin-of-text token.
        terminator: token ids of the text that ends a title.
    """

    def __init__(self, tokenizer: Any, form: TitleForm) -> None:
        """Wrap a tokenizer of the transformers library.

        Args:
            tokenizer: the tokenizer.
            form: the format in which titles are written.

        Raises:
            ModelError: the tokenizer produces no ids for the text that ends a title.
        """
        self.form = form
        self._tokenizer = tokenizer
        self._added = {  # excludes white space, since Gemma has added tokens for line breaks
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
        """Return the token ids that the encoding of a text must not contain."""
        return frozenset(self._added)

    def _start_ids(self) -> tuple[int, ...]:
        """Find the token ids that the tokenizer puts before every text, such as a start token."""
        plain = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self._tokenizer("a", add_special_tokens=True)["input_ids"]
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(int(i) for i in full[:start])
        return ()

    def text(self, text: str) -> tuple[int, ...]:
        """Encode a piece of text as token ids, none of which are control tokens.

        The results are cached.
        """
        if text not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[text] = self._encode([text])[0]
        return self._cache[text]

    def _encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Encode each text separately, without control tokens and without the ids in ``start``."""
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
        """Encode a text that contains the spelling of an added token without producing that token.

        The option ``split_special_tokens`` is not enough, because it splits only special tokens,
        and some tokenizers also have the spelling in their plain vocabulary. A space is therefore
        inserted into the spelling. If the ids still include added tokens, such as the token for
        unknown characters, these ids are dropped.
        """
        for content in sorted(set(self._added.values()), key=len, reverse=True):
            if len(content) > 1:
                text = text.replace(content, f"{content[0]} {content[1:]}")
        ids = self._tokenizer([text], add_special_tokens=False, split_special_tokens=True)
        return tuple(i for i in ids["input_ids"][0] if i not in self._added)

    def title(self, rendered: str) -> tuple[int, ...]:
        """Encode a title with the text that precedes it (lead) and the text that ends it (terminator).

        The lead and the title are truncated to ``max_title_tokens`` tokens before the terminator is
        appended. Because the terminator occurs only at the end, no encoded title is a proper prefix
        of another one.

        Args:
            rendered: the title in the format used in prompts.
        """
        return self._terminate(self.text(f"{self.form.lead}{rendered}"))

    def _decode_title(self, title: tuple[int, ...]) -> str:
        """Decode the ids of a truncated title, so that users see the same text as the model."""
        text = str(self._tokenizer.decode(list(title[: -len(self.terminator)])))
        return text.removeprefix(self.form.lead)

    def _terminate(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Truncate a title's ids to the maximum length and append the terminator.

        If the terminator's ids also occur within the title, the last of them is removed from the
        title, so that the terminator occurs only at the end.
        """
        body = ids[: self.form.max_title_tokens]
        size = len(self.terminator)
        while any(body[i : i + size] == self.terminator for i in range(len(body))):
            # This happens only if the tokenizer uses the terminator's ids for other characters too.
            body = tuple(i for i in body if i != self.terminator[-1])
        return body + self.terminator

    def titles(
        self, catalog: Catalog, progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, ...]]:
        """Encode every title of a catalog, in the order of the catalog's rows.

        Args:
            catalog: the items.
            progress: function that is called after each batch with the number of titles encoded so
                far.

        Yields:
            The token ids of each title.
        """
        rendered = [f"{self.form.lead}{self.form.render(t)}" for t in catalog.titles]
        for first in range(0, len(rendered), _CHUNK):
            for ids in self._encode(rendered[first : first + _CHUNK]):
                yield self._terminate(ids)
            if progress:
                progress(min(first + _CHUNK, len(rendered)))

    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Encode a rendered prompt as token ids, one segment at a time.

        The ids begin with those in ``start``, or with the chat template's text if the prompt is a
        chat message.

        Raises:
            PromptError: the prompt has no tokens, or it needs a chat template and the model has
                none.
        """
        frame = self._chat_frame if prompt.chat else ("", "")
        ids = list(self._encode_trusted(frame[0]) if prompt.chat else self.start)
        bounds = []
        segments = []
        cuts: list[int] = []
        places = list(prompt.cuts or ())
        for index, segment in enumerate(prompt.segments):
            start = len(ids)
            while places and places[0][0] == index:
                offset, n = places.pop(0)[1], 0
                if offset:  # a token that reaches across the cut belongs to the later part
                    before = self.text(segment.text[:offset])
                    n = shared_start([before, self.text(segment.text)])
                cuts.append(start + n)
            if segment.row is None:
                ids.extend(self.text(segment.text))
            else:
                title = self.title(segment.text)
                ids.extend(title)
                if len(title) - len(self.terminator) == self.form.max_title_tokens:
                    segment = replace(segment, text=self._decode_title(title))
            segments.append(segment)
            bounds.append((start, len(ids)))
        cuts += [len(ids)] * len(places)
        prompt = replace(prompt, segments=tuple(segments))
        if not ids:
            msg = (
                "The prompt has no tokens. Expected the template to have text before the target; "
                "fix the template."
            )
            raise PromptError(msg)
        ids.extend(self._encode_trusted(frame[1]))
        divided = None if prompt.cuts is None else tuple(cuts)
        return EncodedPrompt(prompt, tuple(ids), tuple(bounds), frame, cuts=divided)

    @cached_property
    def _chat_frame(self) -> tuple[str, str]:
        """Return the text that the model's chat template puts before and after a user's message."""
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
        """Encode the chat template's own text, in which control tokens are allowed."""
        if not text:
            return ()
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain(self, text: str) -> tuple[int, ...]:
        """Encode a prompt that is given as one string, with the ids in ``start`` before it."""
        return (*self.start, *self._encode([text])[0])

    def message(self, text: str) -> tuple[int, ...]:
        """Encode a user's message as a chat prompt, which ends where the model's answer begins.

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
        """Return a SHA-256 hash in hexadecimal that identifies the encoder.

        Two encoders with the same hash produce the same ids, since the hash covers the vocabulary,
        the added tokens and the format of titles. Run folders store the hash, so it must be stable.
        The format is therefore represented by ``keys.spell`` rather than ``repr``: the hash then
        stays the same when a class is renamed or a field with a default value is added.
        """
        form = spell(self.form, "TitleForm", _FORM_FIELDS)
        state = f"({form}, {sorted(self._added.items())!r}, {self.start!r})"
        digest = hashlib.sha256(state.encode())
        probe = "Red mug 12 pcs, 红色杯子 ☕ " + "".join(chr(c) for c in range(33, 127))
        digest.update(repr((len(self._tokenizer), self.text(probe), self.terminator)).encode())
        return digest.hexdigest()

    @cached_property
    def digest(self) -> str | None:
        """Return a hash of everything that determines the ids of titles, if it can be computed.

        Unlike ``hash``, it covers the complete tokenizer, and it may change with the version of
        genrec or of the tokenizers library. It is None if the tokenizer cannot be serialized.
        """
        whole = _digest_tokenizer(self._tokenizer)
        return None if whole is None else f"{whole} {self.hash} {self.form!r}"


def _digest_tokenizer(tokenizer: Any) -> str | None:
    """Return a SHA-256 hash (hex) of the complete tokenizer, or None if it cannot be serialized."""
    if (own := getattr(tokenizer, "digest", None)) is not None:
        return str(own)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return hashlib.sha256(backend.to_str().encode("utf-8", "surrogatepass")).hexdigest()


def shared_start(sequences: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common prefix of the sequences.

    >>> shared_start([[1, 2, 3], [1, 2], [1, 2, 4]])
    2
    """
    first, last = min(map(list, sequences)), max(map(list, sequences))
    same = (a == b for a, b in zip(first, last, strict=False))
    return sum(takewhile(bool, same))
