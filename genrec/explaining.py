"""One sentence on each recommendation, written by the model and checked. First form.

The sentence begins with a title of the history, chosen by the model under a trie of the titles in
the prompt, and the item's own. After them the model writes words, each once: those of the item's
title and attributes, and the template's list of plain words. So it names no other item and invents
no attribute; true words can still be joined to a wrong claim. What fails the check is replaced by a
plain sentence on the same event. The evidence is what the model names, not yet what its ranking
rests on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from genrec.catalog import Catalog
from genrec.encoding import EncodedPrompt, Encoder
from genrec.errors import PromptError
from genrec.interactions import History, Interaction
from genrec.model import LanguageModel
from genrec.prompts import Template
from genrec.reading import script
from genrec.text import one_line
from genrec.token_tree import ROOT
from genrec.trie import TitleTrie

MAX_TOKENS = 48  # of a sentence, names included
MAX_WORDS = 14  # after the evidence
NEEDED = ("opening", "link", "plain", "none")  # in the header of a template
_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_LONGEST_PIECE = 4  # characters of a word in a script that is written without spaces


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item is recommended.

    Attributes:
        text: one sentence.
        source: ``generated`` by the model and checked, or ``template``: the plain sentence.
    """

    text: str
    source: str


@dataclass(slots=True)
class _Sentence:
    """A sentence that is being written: after its opening, names (rows) and words (ids).

    Attributes:
        row: of the item that is explained.
        rows: of the history, which the evidence may have.
        trie: of their titles.
        handle: in the token tree, of the last token.
        node: in the trie while the evidence is being written, then None.
        words: token ids -> the words that may still be written.
        prefix: ids of the word that is being written.
        parts: catalog rows of names, and the words between them as ids.
        used: words that were written.
        ended: whether it came to its end.
    """

    row: int
    rows: Sequence[int]
    trie: TitleTrie
    handle: int
    node: int | None = 0
    words: dict[tuple[int, ...], str] = field(default_factory=dict)
    prefix: tuple[int, ...] = ()
    parts: list[int | list[int]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    ended: bool = False


class Explainer:
    """Writes explanations with one model, one ``explain`` template and one catalog."""

    def __init__(
        self,
        model: LanguageModel,
        template: Template,
        catalog: Catalog,
        *,
        case: str = "as_is",
        max_title_tokens: int = 48,
    ) -> None:
        """Prepares an explainer.

        Args:
            model: writes the sentences.
            template: with ``opening``, ``link``, ``plain`` and ``none`` in its header.
            catalog: the items.
            case: how titles are written for the model.
            max_title_tokens: where they are cut for it.

        Raises:
            PromptError: the template's header lacks something.
        """
        missing = [key for key in NEEDED if key not in template.header]
        if missing or "{item}" not in template.header["link"]:
            msg = (
                f"Template {template.name!r} writes no explanations: its header lacks "
                f"{', '.join(missing) or '{item} in link'}. Expected {', '.join(NEEDED)}, as in "
                "the shipped explain.jinja."
            )
            raise PromptError(msg)
        self._model = model
        self._template = template
        self._catalog = catalog
        self._encoder = Encoder(model.tokenizer, template.form(case, max_title_tokens))

    def explain(
        self,
        history: History,
        rows: Sequence[int],
        behavior: str,
        *,
        max_prompt_tokens: int = 2048,
        max_events: int = 25,
    ) -> list[Explanation]:
        """One explanation for each of the recommended items.

        Args:
            history: what the recommendation was made from.
            rows: catalog rows of the items.
            behavior: what they are recommended for.
            max_prompt_tokens: the most tokens of a prompt.
            max_events: the most events in it.

        Raises:
            PromptError: the prompt does not fit.
        """
        named = {*rows, *self._catalog.rows(history.latest(max_events).item_ids)}
        longest = max((len(self._title(r)) for r in named), default=0)
        link = len(self._encoder.text(self._template.header["link"]))
        room = self._model.context - MAX_TOKENS - 2 * longest - link
        prompts = [
            self._encoder.fit(
                self._template,
                self._catalog,
                history,
                behavior,
                max_tokens=min(max_prompt_tokens, room),
                max_events=max_events,
                item=row,
            )
            for row in rows
        ]
        if not prompts:
            return []
        shown = [self._shown(p, history) for p in prompts]
        evidence = [self._evidence(e, row) for e, row in zip(shown, rows, strict=True)]
        write = [n for n, found in enumerate(evidence) if found]
        answer = [Explanation(self._plain(events, None), "template") for events in shown]
        sentences = self._write(
            [prompts[n] for n in write], [evidence[n] for n in write], [rows[n] for n in write]
        )
        for n, sentence in zip(write, sentences, strict=True):
            answer[n] = self._finished(sentence, shown[n])
        return answer

    def _evidence(self, events: Sequence[Interaction], row: int) -> list[int]:
        """The rows of the events' items, but for those with the title that is explained."""
        rows = [self._catalog.row(e.item_id) for e in events if e.item_id is not None]
        return [r for r in dict.fromkeys(rows) if self._title(r) != self._title(row)]

    def _title(self, row: int) -> tuple[int, ...]:
        return self._encoder.title(self._encoder.form.render(self._catalog[row].title))

    def _shown(self, prompt: EncodedPrompt, history: History) -> list[Interaction]:
        return list(history.latest(prompt.prompt.events).interactions)

    def _plain(self, events: Sequence[Interaction], row: int | None) -> str:
        """The sentence that is built and not written: on the event of a row, else on the last."""
        header = self._template.header
        for event in reversed(events):
            if row is None or (event.item_id and self._catalog.row(event.item_id) == row):
                title = event.text or ""
                if event.item_id is not None:
                    title = self._catalog[self._catalog.row(event.item_id)].title
                verb = self._template.verb(event.behavior).past
                text = header["plain"].replace("{verb}", verb)
                return text.replace("{title}", one_line(title))
        return header["none"]

    def _write(
        self,
        prompts: Sequence[EncodedPrompt],
        evidence: Sequence[Sequence[int]],
        rows: Sequence[int],
    ) -> list[_Sentence]:
        """All sentences together, a token of each at a time, over one tree."""
        if not prompts:
            return []
        ids = [p.ids for p in prompts]
        shared = _shared([i[:-1] for i in ids])
        tree = self._model.prefill(ids[0][:shared])
        handles, logits = tree.extend([ROOT] * len(ids), [i[shared:] for i in ids])
        sentences = [
            _Sentence(row, past, self._trie(past), handle)
            for handle, past, row in zip(handles, evidence, rows, strict=True)
        ]
        live = list(range(len(sentences)))
        for _ in range(MAX_TOKENS):
            runs = [self._next(sentences[n], logits[place]) for place, n in enumerate(live)]
            going = [(n, run) for n, run in zip(live, runs, strict=True) if run]
            live = [n for n, _ in going]
            if not live:
                break
            parents = [sentences[n].handle for n in live]
            handles, logits = tree.extend(parents, [run for _, run in going])
            for n, handle in zip(live, handles, strict=True):
                sentences[n].handle = handle
        return sentences

    def _trie(self, rows: Sequence[int]) -> TitleTrie:
        return TitleTrie(self._title(r) for r in rows)

    def _next(self, sentence: _Sentence, logits: torch.Tensor) -> list[int]:
        """Takes the most probable step that is allowed; gives its tokens, none at the end."""
        return (
            self._next_word(sentence, logits)
            if sentence.node is None
            else self._next_of_name(sentence, logits, sentence.node)
        )

    def _next_of_name(self, sentence: _Sentence, logits: torch.Tensor, node: int) -> list[int]:
        """The next tokens of the evidence's title; after it the link and the item's own title."""
        trie = sentence.trie
        children, _ = trie.children(np.array([node]))
        tokens = torch.from_numpy(trie.tokens(children))
        best = int(logits[tokens].argmax())
        end = children[best : best + 1]
        (run,) = trie.runs(end)
        sentence.node = int(end[0])
        if not trie.is_leaf(end)[0]:
            return run
        sentence.node = None
        sentence.parts.append(sentence.rows[int(trie.rows(int(end[0]))[0])])
        sentence.words = self._words_for(sentence.row)
        before, _, after = self._template.header["link"].partition("{item}")
        own = self._title(sentence.row)
        link = list(self._encoder.text(before)), list(own), list(self._encoder.text(after))
        sentence.parts += [link[0], sentence.row, link[2]]
        return [*run, *(i for ids in link for i in ids)]

    def _next_word(self, sentence: _Sentence, logits: torch.Tensor) -> list[int]:
        """The next token of a word, or of the end, which may not follow a plain word."""
        prefix, size = sentence.prefix, len(sentence.prefix)
        said = sentence.words.get(prefix, "")  # a whole word, so that another may begin
        longer = [ids for ids in sentence.words if len(ids) > size and ids[:size] == prefix]
        within = frozenset(ids[size] for ids in longer) if prefix else frozenset()
        allowed = set(within)
        if said or not prefix:
            may_end = bool(said) and said not in self._plain_words
            full = len(sentence.used) + 1 >= MAX_WORDS
            others = [(ids, word) for ids, word in sentence.words.items() if word != said]
            allowed |= {ids[0] for ids, word in others if (may_end if not word else not full)}
        if not allowed:
            return []
        choices = sorted(allowed)
        token = choices[int(logits[torch.tensor(choices)].argmax())]
        if token not in within and said:
            sentence.used.append(said)
            sentence.words = {ids: w for ids, w in sentence.words.items() if w != said}
            sentence.prefix = ()
        sentence.prefix = (*sentence.prefix, token)
        part = sentence.parts[-1]
        assert isinstance(part, list)
        part.append(token)
        sentence.ended = sentence.words.get(sentence.prefix) == ""
        return [] if sentence.ended else [token]

    @cached_property
    def _plain_words(self) -> frozenset[str]:
        return frozenset(self._template.header.get("words", "").split())

    @cached_property
    def _end(self) -> str:
        return "。" if self._template.header.get("language") == "zh" else "."

    def _words_for(self, row: int) -> dict[tuple[int, ...], str]:
        """Token ids -> word: what the catalog says of an item, plain words, and "" for the end."""
        item = self._catalog[row]
        said = [item.title, *(v for v in item.attributes.values() if isinstance(v, str))]
        words = set(self._plain_words).union(*(_pieces(one_line(t).lower()) for t in said))
        spaced = " " if self._encoder.form.lead.startswith(" ") else ""
        found = {self._encoder.text(f"{spaced}{w}"): w for w in sorted(words)}
        found[self._encoder.text(self._end)] = ""
        return {ids: w for ids, w in found.items() if ids}

    def _finished(self, sentence: _Sentence, events: Sequence[Interaction]) -> Explanation:
        """The sentence as people read it, or the plain one where it fails the check."""
        form = self._encoder.form
        header = self._template.header
        decode = self._model.tokenizer.decode
        text = header["opening"]
        ids: list[int] = []
        for part in sentence.parts:
            if isinstance(part, int):
                title = self._catalog[part].title
                text += f"{form.lead}{one_line(title)}{form.terminator}"
                ids += self._title(part)
            else:
                before = str(decode(ids))
                ids += part
                text += str(decode(ids))[len(before) :]
        evidence = sentence.parts[0] if sentence.parts else None
        if sentence.ended and "\ufffd" not in text and not self._only_repeats(sentence):
            return Explanation(text.strip(), "generated")
        assert not isinstance(evidence, list)
        return Explanation(self._plain(events, evidence), "template")

    def _only_repeats(self, sentence: _Sentence) -> bool:
        """Whether a sentence says of an item no more than that it is called what it is called."""
        content = "".join(w for w in sentence.used if w not in self._plain_words)
        return content == "".join(_LETTERS.findall(self._catalog[sentence.row].title.lower()))


def _pieces(text: str) -> set[str]:
    """The words of a text; of scripts without spaces, runs of two to four characters."""
    words: set[str] = set()
    for word in _LETTERS.findall(text):
        if script(word[0]) in {"han", "kana", "thai"}:
            words |= {
                word[i : i + n]
                for n in range(2, _LONGEST_PIECE + 1)
                for i in range(len(word) - n + 1)
            }
        else:
            words.add(word)
    return words


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many first ids all sequences have in common, at least 1."""
    first = sequences[0]
    n = min(len(s) for s in sequences)
    for i in range(n):
        if any(s[i] != first[i] for s in sequences):
            return max(i, 1)
    return max(n, 1)
