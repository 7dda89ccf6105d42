"""Let the model write sentences about items, and reject sentences that claim too much.

A sentence first names an event and then the item. The model chooses the event with the help of a
trie that contains only the titles of the strongest events. After the names, the model writes
freely, and the module ``claims`` checks the result against the catalog and the history. If the
check fails, the model writes the ending once more, but may choose only from a few plain words and
the words of the item's title and attributes. In both cases, it cannot write the title of any other
item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from genrec.data.catalog import Catalog, Item
from genrec.decoding.trie import TitleTrie
from genrec.explain.claims import LETTERS, SPACELESS, Facts, find_problems, has_foreign_word
from genrec.explain.drafts import Draft, is_heard, tell, whole_words
from genrec.explain.phrases import LEAST, Phrases
from genrec.explain.types import Rejected
from genrec.models.language_model import LanguageModel
from genrec.models.token_tree import ROOT, TokenTree
from genrec.prompts.encoder import Encoder, shared_start
from genrec.prompts.template import Template
from genrec.text import one_line, script

MAX_TOKENS = 48  # the maximum number of tokens in a sentence, including the names
MAX_WORDS = 14  # the maximum number of words after the names if the model chooses from a list
MAX_FREE = 20  # the maximum number of tokens after the names if the model writes freely
_TOGETHER = 16  # sentences that are written in the same passes
_ENDS = (".", "。", "!", "！", "?", "？")
_QUOTES = '"“”„«»‹›「」『』'


@dataclass(slots=True)
class _Sentence:
    """An unfinished sentence, whose opening the model has already processed.

    Attributes:
        user: the index of the sentence's prompt in the token tree.
        facts: the facts that the sentence may state.
        tail: the facts that the sentence may state after the names. They do not include the words
            of the template's opening and link.
        rows: the catalog rows of the events that may be named.
        trie: a trie of the titles of these events.
        logits: the model's logits after the last token, one for each vocabulary entry.
        handle: the handle of the last token in the token tree.
        node: the trie node reached in an unfinished event title; None once the title is complete.
        words: a mapping from the token ids of each phrase that may still be written to the phrase.
            The phrase "" stands for the end of the sentence.
        prefix: the token ids of the current phrase that have been written so far.
        parts: the parts of the sentence. A name is given as a catalog row, and other text as token
            ids.
        used: the phrases written so far, including plain words.
        span: the minimum and the maximum number of words that are not plain words.
        ended: True if the sentence is complete.
    """

    user: int
    facts: Facts
    tail: Facts
    rows: Sequence[int]
    trie: TitleTrie
    logits: torch.Tensor
    handle: int = ROOT
    node: int | None = 0
    words: dict[tuple[int, ...], str] = field(default_factory=dict)
    prefix: tuple[int, ...] = ()
    parts: list[int | list[int]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    span: tuple[int, int] = (LEAST, MAX_WORDS)
    ended: bool = False


class Writer:
    """Writes sentences about items, using a language model and an ``explain`` template."""

    def __init__(
        self,
        model: LanguageModel,
        template: Template,
        encoder: Encoder,
        catalog: Catalog,
        *,
        max_words: int = MAX_WORDS,
    ) -> None:
        """Store the model, the template and the catalog.

        Args:
            model: the language model that writes the sentences.
            template: an ``explain`` template with a complete header.
            encoder: the encoder for titles in the format of the template.
            catalog: the items.
            max_words: the maximum number of words that follow the item names, for templates in
                which the model picks words from a list.
        """
        self._model = model
        self._template = template
        self._encoder = encoder
        self._catalog = catalog
        self._max_words = max_words

    def title_ids(self, row: int) -> tuple[int, ...]:
        """Return the token ids of an item's title in the format that sentences use."""
        return self._encoder.title(self._encoder.form.render(self._catalog[row].title))

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        named: Sequence[Sequence[int]],
        facts: Sequence[Facts],
    ) -> list[tuple[str | None, list[Rejected]]]:
        """Write a sentence for each prompt, and check it.

        Some are written together, and not all: a pass over 1,000 prompts would take seconds and gigabytes, and
        nothing could be done between its beginning and its end.

        Args:
            prompts: the token ids of each prompt.
            named: for each sentence, the catalog rows of the events that it may name.
            facts: for each sentence, the facts that it may state.

        Returns:
            For each prompt, the accepted sentence or None, and the list of rejected sentences.
        """
        found: list[tuple[str | None, list[Rejected]]] = []
        alone = len(prompts) == 1  # listeners hear of a single sentence only
        for start in range(0, len(prompts), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            found += self._write_some(prompts[some], named[some], facts[some], alone)
        return found

    def _write_some(
        self,
        prompts: Sequence[Sequence[int]],
        named: Sequence[Sequence[int]],
        facts: Sequence[Facts],
        alone: bool,
    ) -> list[tuple[str | None, list[Rejected]]]:
        """Write sentences as ``write`` does, all of them together."""
        tree, sentences = self._begin(prompts, named, facts)
        self._extend(tree, sentences, self._next_of_name, attempt=1 if alone else 0)
        results: list[tuple[str | None, list[Rejected]]] = [(None, []) for _ in sentences]
        open_indices = list(range(len(sentences)))
        for attempt, step in enumerate((self._next_free, self._next_word), start=1):
            drafts = [self._draft(sentences[n]) for n in open_indices]
            self._extend(tree, drafts, step, attempt=attempt if alone else 0)
            for n, draft in zip(open_indices, drafts, strict=True):
                text = self._text(draft)
                problems = self._problems(draft, text)
                if problems:
                    results[n][1].append(Rejected(text, "; ".join(problems)))
                    if alone:
                        tell(Draft(text, attempt, rejected="; ".join(problems)))
                else:
                    results[n] = text, results[n][1]
            open_indices = [n for n in open_indices if results[n][0] is None]
            if not open_indices:
                break
        return results

    def _begin(
        self,
        prompts: Sequence[Sequence[int]],
        named: Sequence[Sequence[int]],
        facts: Sequence[Facts],
    ) -> tuple[TokenTree, list[_Sentence]]:
        """Read all prompts into one token tree, and create an unfinished sentence for each.

        The common prefix of the prompts is read only once.
        """
        shared = min(shared_start(prompts), *(len(p) - 1 for p in prompts))
        if shared:
            tree = self._model.prefill(prompts[0][:shared])
            users = [0] * len(prompts)
            handles, outputs = tree.grow(users, [ROOT] * len(users), [p[shared:] for p in prompts])
        else:
            tree = self._model.prefill_many(prompts)
            users, handles = list(range(len(prompts))), np.full(len(prompts), ROOT)
            outputs = tree.root
        logits = outputs.logits()
        return tree, [
            _Sentence(
                user=users[n],
                facts=known,
                tail=self._tail_facts(known),
                rows=rows,
                trie=TitleTrie(self.title_ids(r) for r in rows),
                logits=logits[n],
                handle=int(handles[n]),
            )
            for n, (rows, known) in enumerate(zip(named, facts, strict=True))
        ]

    def _tail_facts(self, facts: Facts) -> Facts:
        """Return the facts that a sentence may state after the names.

        They do not include the words of the template's opening and link.
        """
        header = self._template.header
        return replace(facts, plain=(header.get("words", ""), header.get("passing", "")))

    def _draft(self, sentence: _Sentence) -> _Sentence:
        """Copy a sentence up to the end of its names, and set the phrases that may follow them."""
        words = self._words_for(sentence.facts.item)
        span = self._span(sentence.facts, words)
        return replace(sentence, parts=[*sentence.parts[:-1], []], words=words, span=span)

    def _extend(
        self,
        tree: TokenTree,
        sentences: Sequence[_Sentence],
        step: Callable[[_Sentence], list[int]],
        *,
        attempt: int,
    ) -> None:
        """Extend all sentences together, token by token, until none of them can be extended further.

        Each sentence is extended at most ``MAX_TOKENS`` times.

        Args:
            tree: the token tree that contains the prompts.
            sentences: the sentences to extend.
            step: a function that chooses the next tokens of a sentence, or returns an empty list if
                there are none.
            attempt: the attempt that a listener is told; 0 to tell nothing.
        """
        live, told = list(sentences), ""
        for _ in range(MAX_TOKENS):
            runs = [(s, run) for s in live if (run := step(s))]
            if attempt and live and is_heard():
                text = self._text(live[0])
                text = text if live[0].ended else whole_words(text)
                if text != told:
                    tell(Draft(text, attempt))
                told = text
            if not runs:
                break
            live = [s for s, _ in runs]
            handles, outputs = tree.grow(
                [s.user for s in live], [s.handle for s in live], [run for _, run in runs]
            )
            logits = outputs.logits()
            for n, sentence in enumerate(live):
                sentence.handle, sentence.logits = int(handles[n]), logits[n]

    def _next_of_name(self, sentence: _Sentence) -> list[int]:
        """Choose the next tokens of the title of the event that the sentence mentions.

        Once the title is complete, the template's linking words and the item's title are appended.
        """
        if sentence.node is None:
            return []
        trie = sentence.trie
        children, _ = trie.children(np.array([sentence.node]))
        tokens = torch.from_numpy(trie.tokens(children))
        best = int(sentence.logits[tokens].argmax())
        end = children[best : best + 1]
        (run,) = trie.runs(end)
        sentence.node = int(end[0])
        if not trie.is_leaf(end)[0]:
            return run
        sentence.node = None
        sentence.parts.append(sentence.rows[int(trie.rows(int(end[0]))[0])])
        before, _, after = self._template.header["link"].partition("{item}")
        row = self._catalog.row(sentence.facts.item.item_id)
        own = self.title_ids(row)
        link = list(self._encoder.text(before)), list(own), list(self._encoder.text(after))
        sentence.parts += [link[0], row, link[2], []]
        return [*run, *(i for ids in link for i in ids)]

    def _next_free(self, sentence: _Sentence) -> list[int]:
        """Choose the most probable next token that is not a control token or a quotation mark.

        The result is empty if the sentence has ended, or at the first word that the check would
        reject.
        """
        part = sentence.parts[-1]
        assert isinstance(part, list)
        if sentence.ended or len(part) >= MAX_FREE:
            return []
        logits = sentence.logits.clone()
        logits[self._forbidden_ids] = -torch.inf
        part.append(int(logits.argmax()))
        text = str(self._model.tokenizer.decode(part))
        sentence.ended = text.rstrip().endswith(_ENDS)
        return [] if sentence.ended or has_foreign_word(text, sentence.tail) else part[-1:]

    @cached_property
    def _forbidden_ids(self) -> torch.Tensor:
        """Return the ids of control tokens and quotation marks, which the model may not write freely."""
        vocabulary = self._model.tokenizer.get_vocab()
        quotes = {i for t, i in vocabulary.items() if any(q in t for q in _QUOTES)}
        return torch.tensor(sorted(quotes | self._encoder.control_ids))

    def _next_word(self, sentence: _Sentence) -> list[int]:
        """Choose the next token of a phrase from the list, or of the text that ends the sentence."""
        if sentence.ended:
            return []
        prefix, size = sentence.prefix, len(sentence.prefix)
        complete = sentence.words.get(prefix, "")  # a complete phrase; another may follow it
        within: set[int] = set()
        if prefix:
            words = self._following(sentence, sentence.used)
            within = {ids[size] for ids in words if len(ids) > size and ids[:size] == prefix}
        allowed = set(within)
        if complete or not prefix:
            used = [*sentence.used, complete] if complete else sentence.used
            words = self._following(sentence, used)
            allowed |= {ids[0] for ids, word in words.items() if word != complete}
        if not allowed:
            return []
        choices = sorted(allowed)
        token = choices[int(sentence.logits[torch.tensor(choices)].argmax())]
        if token not in within and complete:
            sentence.used.append(complete)
            sentence.words = {ids: w for ids, w in sentence.words.items() if w != complete}
            sentence.prefix = ()
        sentence.prefix = (*sentence.prefix, token)
        part = sentence.parts[-1]
        assert isinstance(part, list)
        part.append(token)
        sentence.ended = sentence.words.get(sentence.prefix) == ""
        return [] if sentence.ended else [token]

    def _following(self, sentence: _Sentence, used: Sequence[str]) -> dict[tuple[int, ...], str]:
        """Return the phrases that may follow those written so far, keyed by their token ids.

        Plain words may appear only between phrases about the item, and the sentence must end with a
        phrase about the item.
        """
        plain, words = self._plain_words, sentence.words
        done = [word for phrase in used if phrase not in plain for word in phrase.split()]
        least, most = sentence.span
        after_phrase = bool(used) and used[-1] not in plain

        def can_add(phrase: str, said: Sequence[str]) -> bool:
            more = phrase.split()
            return len(said) + len(more) <= most and not set(more) & set(said)

        def can_continue(said: Sequence[str]) -> bool:
            return any(
                p and p not in plain and can_add(p, said) and len(said) + len(p.split()) >= least
                for p in words.values()
            )

        def may_follow(phrase: str) -> bool:
            if not phrase:
                return after_phrase and len(done) >= least
            if phrase in plain:
                return after_phrase and can_continue(done)
            if after_phrase or not can_add(phrase, done):
                return False
            said = [*done, *phrase.split()]
            return len(said) >= least or can_continue(said)

        return {ids: phrase for ids, phrase in words.items() if may_follow(phrase)}

    @cached_property
    def _plain_words(self) -> frozenset[str]:
        """Return the template's plain words, which may join phrases about any item."""
        return frozenset(self._template.header.get("words", "").split())

    @cached_property
    def _full_stop(self) -> str:
        return "。" if self._template.header.get("language") == "zh" else "."

    @cached_property
    def _phrases(self) -> Phrases:
        empty = self._template.header.get("empty", "").split()
        return Phrases(self._catalog, frozenset(empty))

    def _words_for(self, item: Item) -> dict[tuple[int, ...], str]:
        """Return the phrases that a sentence about an item may use, keyed by their token ids.

        The phrases come from the item's title and attributes. Plain words are also included, as is
        "", which stands for the end of the sentence.
        """
        words = self._phrases.of(item) | self._plain_words
        spaced = " " if self._encoder.form.lead.startswith(" ") else ""
        by_ids = {self._encoder.text(f"{spaced}{w}"): w for w in sorted(words)}
        by_ids[self._encoder.text(self._full_stop)] = ""
        return {ids: w for ids, w in by_ids.items() if ids}

    def _span(self, facts: Facts, phrases: Mapping[tuple[int, ...], str]) -> tuple[int, int]:
        """Return the minimum and the maximum number of words that describe the item in a sentence.

        The maximum is low enough that a sentence cannot use all words of the item. In scripts
        without spaces, the minimum is 1, since a single piece may contain several words.
        """
        if facts.script in SPACELESS:
            return 1, self._max_words
        own = {w for p in phrases.values() if p not in self._plain_words for w in p.split()}
        return LEAST, min(max(len(own) - 1, LEAST), self._max_words)

    def _text(self, sentence: _Sentence) -> str:
        """Convert a sentence to text, in which titles are written as in the catalog."""
        form = self._encoder.form
        decode = self._model.tokenizer.decode
        text = self._template.header["opening"]
        ids: list[int] = []
        for part in sentence.parts:
            if isinstance(part, int):
                title = self._catalog[part].title
                text += f"{form.lead}{one_line(title)}{form.terminator}"
                ids += self.title_ids(part)
            else:
                before = str(decode(ids))
                ids += part
                text += str(decode(ids))[len(before) :]
        return one_line(text)

    def _problems(self, sentence: _Sentence, text: str) -> tuple[str, ...]:
        """Return the reasons to reject a sentence, or an empty tuple if it is accepted."""
        if "\ufffd" in text:
            return ("contains invalid characters",)
        last = sentence.parts[-1]
        assert isinstance(last, list)
        tail = str(self._model.tokenizer.decode(last))
        problems = find_problems(text, sentence.facts)
        if not problems and has_foreign_word(f"{tail} ", sentence.tail):
            problems = ("describes the item with words from the template's fixed text",)
        if not sentence.ended:
            return problems or ("is unfinished",)
        return problems or ("says too little",) * self.says_little(tail, sentence.facts.item)

    def says_little(self, tail: str, item: Item) -> bool:
        """Return True if the text after the names is only the item's title or a single word.

        The name of an attribute, such as "brand", does not count as a word, since almost every item
        has such an attribute.

        Args:
            tail: the text after the names.
            item: the item that the sentence is about.
        """
        passing = self._template.header.get("passing", "").split()
        values = " ".join([item.title, *map(str, item.known.values())]).lower()
        names = set(LETTERS.findall(" ".join(item.known).replace("_", " ").lower()))
        empty = {*self._plain_words, *passing} | (names - set(LETTERS.findall(values)))
        words = [w for w in LETTERS.findall(tail.lower()) if w not in empty]
        title = "".join(LETTERS.findall(item.title.lower()))
        if any(script(w[0]) in SPACELESS for w in words):
            rest = "".join(words)
            for plain in sorted(self._plain_words, key=len, reverse=True):
                rest = rest.replace(plain, "")
            return rest in {"", title}
        return "".join(words) == title or len(words) < LEAST
