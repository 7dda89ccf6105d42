"""One sentence on each recommendation, written by the model and checked. First form.

The sentence begins with a title of the history, chosen by the model under a trie of the titles in
the prompt; after it the model writes freely, but every name of an item goes through a trie of those
titles and the item's own, and digits cannot be written outside names. What fails the check is
replaced by a plain sentence on the same event. The evidence is what the model names, not yet what
its ranking rests on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from genrec.catalog import Catalog
from genrec.encoding import EncodedPrompt, Encoder
from genrec.interactions import History, Interaction
from genrec.model import LanguageModel
from genrec.prompts import Template
from genrec.reading import main_script
from genrec.text import normalized, one_line
from genrec.token_tree import ROOT
from genrec.trie import TitleTrie

MAX_TOKENS = 48  # of a sentence, names included
_ENDS = ".。!！"
_MARKS = " ,;:'’-，；：、()（）" + _ENDS
_LONGEST_NAME = 12  # words, or 30 characters of a script without spaces


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
    """A sentence that is being written: after its opening, names (rows) and free text (ids)."""

    trie: TitleTrie
    rows: Sequence[int]
    handle: int
    node: int | None = 0  # in the trie, None in free text
    parts: list[int | list[int]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
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
            template: with ``opening``, ``plain`` and ``none`` in its header.
            catalog: the items.
            case: how titles are written for the model.
            max_title_tokens: where they are cut for it.
        """
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
        room = self._model.context - MAX_TOKENS - self._encoder.form.max_title_tokens
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
        named = [[e for e in events if e.item_id is not None] for events in shown]
        if not all(named):
            return [Explanation(self._plain(events, None), "template") for events in shown]
        sentences = self._write(prompts, named, rows)
        return [
            self._finished(sentence, events, row)
            for sentence, events, row in zip(sentences, shown, rows, strict=True)
        ]

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
                text = header.get("plain", "{verb} {title}").replace("{verb}", verb)
                return text.replace("{title}", one_line(title))
        return header.get("none", "")

    def _write(
        self,
        prompts: Sequence[EncodedPrompt],
        named: Sequence[Sequence[Interaction]],
        rows: Sequence[int],
    ) -> list[_Sentence]:
        """All sentences together, a token of each at a time, over one tree."""
        ids = [p.ids for p in prompts]
        shared = _shared([i[:-1] for i in ids])
        tree = self._model.prefill(ids[0][:shared])
        handles, logits = tree.extend([ROOT] * len(ids), [i[shared:] for i in ids])
        sentences = []
        for handle, events in zip(handles, named, strict=True):
            past = list(dict.fromkeys(self._catalog.row(e.item_id or "") for e in events))
            sentences.append(_Sentence(self._trie(past), past, handle))
        live = list(range(len(sentences)))
        for _ in range(MAX_TOKENS):
            runs = []
            for place, n in enumerate(live):
                runs.append(self._next(sentences[n], logits[place], rows[n]))
            going = [(n, run) for n, run in zip(live, runs, strict=True) if run]
            live = [n for n, _ in going]
            if not live:
                break
            parents = [sentences[n].handle for n in live]
            handles, logits = tree.extend(parents, [run for _, run in going])
            for n, handle in zip(live, handles, strict=True):
                sentences[n].handle = handle
            live = [n for n in live if len(sentences[n].ids) < MAX_TOKENS]
            logits = logits[[place for place, (n, _) in enumerate(going) if n in live]]
        return sentences

    def _trie(self, rows: Sequence[int]) -> TitleTrie:
        form = self._encoder.form
        return TitleTrie(self._encoder.title(form.render(self._catalog[r].title)) for r in rows)

    def _next(self, sentence: _Sentence, logits: torch.Tensor, row: int) -> list[int]:
        """Takes the most probable step; gives its tokens, none where the sentence is over."""
        trie = sentence.trie
        if sentence.node is None:
            openers = trie.token[trie.children(0)]
            allowed = logits.masked_fill(self._forbidden.to(logits.device), -torch.inf)
            if not any(isinstance(p, int) and p == row for p in sentence.parts):
                allowed[torch.from_numpy(openers)] = logits[torch.from_numpy(openers)]
            token = int(allowed.argmax())
            if token not in openers:
                assert isinstance(sentence.parts[-1], list)
                sentence.parts[-1].append(token)
                sentence.ids.append(token)
                sentence.ended = bool(self._ending[token])
                return [] if sentence.ended else [token]
            child = int(trie.children(0)[np.flatnonzero(openers == token)[0]])
        else:
            children = trie.children(sentence.node)
            best = logits[torch.from_numpy(trie.token[children])].argmax()
            child = int(children[int(best)])
        end = int(trie.skip[child])
        run = trie.run(child, end)
        sentence.ids += run
        sentence.node = end
        if trie.is_leaf(np.array([end]))[0]:
            sentence.parts += [sentence.rows[int(trie.rows(end)[0])], []]
            sentence.node = None
            if len(sentence.parts) == 2:  # the evidence is named; from here on the item's own too
                sentence.rows = list(dict.fromkeys([*sentence.rows, row]))
                sentence.trie = self._trie(sentence.rows)
        return run

    @cached_property
    def _words(self) -> list[str]:
        """The text of every token of the vocabulary."""
        tokenizer = self._model.tokenizer
        rows = int(self._model.model.get_input_embeddings().weight.shape[0])
        return list(tokenizer.batch_decode([[i] for i in range(min(rows, len(tokenizer)))]))

    @cached_property
    def _forbidden(self) -> torch.Tensor:
        """(V,) the tokens that free text may not hold: digits, quotes, brackets, control, ..."""
        rows = int(self._model.model.get_input_embeddings().weight.shape[0])
        forbidden = np.ones(rows, dtype=bool)
        for i, word in enumerate(self._words):
            forbidden[i] = not word or not all(_may_stand(c) for c in word)
        forbidden[[i for i in self._model.tokenizer.added_tokens_decoder if i < rows]] = True
        return torch.from_numpy(forbidden)

    @cached_property
    def _ending(self) -> npt.NDArray[np.bool_]:
        return np.array([any(c in _ENDS for c in word) for word in self._words])

    def _finished(
        self, sentence: _Sentence, events: Sequence[Interaction], row: int
    ) -> Explanation:
        """The sentence as people read it, or the plain one where it fails the check."""
        form = self._encoder.form
        text = self._template.header.get("opening", "")
        decode = self._model.tokenizer.decode
        ids: list[int] = []
        free = ""
        names = [p for p in sentence.parts if isinstance(p, int)]
        for part in sentence.parts:
            if isinstance(part, int):
                title = one_line(self._catalog[part].title)
                text += f"{form.lead}{title}{form.terminator}"
                ids += self._encoder.title(form.render(self._catalog[part].title))
                continue
            before = decode(ids)
            ids += part
            said = decode(ids)[len(before) :]
            end = next((i for i, c in enumerate(said) if c in _ENDS), len(said) - 1)
            text += said[: end + 1]
            free += said[: end + 1] + "\n"
        text = text.strip()
        if sentence.ended and not self._problem(free, names):
            return Explanation(text, "generated")
        return Explanation(self._plain(events, names[0] if names else None), "template")

    def _problem(self, free: str, names: Sequence[int]) -> str:
        """Why a sentence is not used; empty where it may be."""
        if "\ufffd" in free or any(c.isdigit() for c in free):
            return "broken characters or numbers"
        if len(set(names)) < len(names):
            return "a name twice"
        words = normalized(free).split()
        letters = sum(len(w) for w in words)
        if letters < 4 or (main_script([free]) == "latin" and len(words) < 3):
            return "says nothing"
        if main_script([free]) != main_script([self._template.header.get("opening", "")]):
            return "in another script"
        if any(
            words[i : i + 3] == words[j : j + 3] for i in range(len(words) - 2) for j in range(i)
        ):
            return "repeats itself"
        if any(n in self._titles for n in _windows(words)):
            return "names another item"
        return ""

    @cached_property
    def _titles(self) -> frozenset[str]:
        """Normalised titles of two words or four characters of another script, and more."""
        titles = (normalized(t) for t in self._catalog.titles)
        return frozenset(
            t for t in titles if " " in t or (len(t) > 3 and main_script([t]) != "latin")
        )


def _may_stand(character: str) -> bool:
    return (
        character in _MARKS or character == "\ufffd" or unicodedata.category(character)[0] in "LM"
    )


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many first ids all sequences have in common, at least 1."""
    first = sequences[0]
    n = min(len(s) for s in sequences)
    for i in range(n):
        if any(s[i] != first[i] for s in sequences):
            return max(i, 1)
    return max(n, 1)


def _windows(words: Sequence[str]) -> Iterable[str]:
    """Every run of words, and of characters of words in scripts without spaces."""
    for start in range(len(words)):
        for n in range(2, _LONGEST_NAME + 1):
            yield " ".join(words[start : start + n])
    for word in words:
        if main_script([word]) != "latin":
            for start in range(len(word)):
                for n in range(4, 31):
                    yield word[start : start + n]
