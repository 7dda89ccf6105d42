"""Why an item is recommended: the evidence, and a sentence on it that the model wrote and that passed.

A sentence begins with a title of the events that speak most for the item, chosen by the model under
a trie of their titles, and the item's own. Then the model writes on freely; ``claims`` checks every
name, number, word and event against catalog and history. What fails is written once more, now from
the words of the item's title and attributes and a few plain ones alone; what fails again is replaced
by a plain sentence on the strongest event. No other title can be written in either way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from genrec.data.behaviors import templates_folder
from genrec.data.catalog import Catalog, Item
from genrec.data.events import History, Interaction
from genrec.decoding.trie import TitleTrie
from genrec.errors import PromptError
from genrec.explain import evidence as evidencing
from genrec.explain.claims import LETTERS, SPACELESS, Facts, foreign, problems
from genrec.explain.evidence import Change, Question
from genrec.explain.phrases import LEAST, Phrases
from genrec.explain.types import Evidence, Explanation, Older, Rejected, Without
from genrec.models.language_model import LanguageModel
from genrec.models.token_tree import ROOT, TokenTree
from genrec.prompts.encoder import EncodedPrompt, Encoder, shared_start
from genrec.prompts.template import Template
from genrec.text import one_line, script

MAX_TOKENS = 48  # of a sentence, names included
MAX_WORDS = 14  # after the names, where words are chosen
MAX_FREE = 20  # tokens after the names, where they are not
NAMED = 3  # events that speak most for an item, of which one is named
FAINT = 0.01  # nats; an event whose absence takes less is not said to speak for an item
_ROUNDING = 0.25  # nats; what half precision may make of a difference of scores at temperature 1
NEEDED = ("opening", "link", "plain", "none", "silent")  # in the header of a template
_ENDS = (".", "。", "!", "！", "?", "？")
_QUOTES = '"“”„«»‹›「」『』'


@dataclass(slots=True)
class _Sentence:
    """A sentence that is being written: after its opening, names (rows) and words (ids).

    Attributes:
        user: its prompt's place in the batch.
        facts: what it may say, of which item.
        tail: what it may say after the names: words of the item, none of opening and link.
        rows: of the events that may be named.
        trie: of their titles.
        logits: (V,) after what was written.
        handle: in the token tree, of the last token.
        node: in the trie while the first name is being written, then None.
        words: token ids -> the phrases that may still be written.
        prefix: ids of the phrase that is being written.
        parts: catalog rows of names, and the words between them as ids.
        used: phrases that were written, and the words between them.
        span: how many words that are not plain it must have, and may have.
        ended: whether it came to its end.
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


def explain_template(style: str, language: str, own: str | None) -> Template:
    """The template of a style: ``explain.jinja`` is ``reason``, ``explain_NAME.jinja`` any other.

    Args:
        style: its name.
        language: of the sentences.
        own: a folder of the user's own templates, or None.

    Raises:
        PromptError: there is none; the message lists those there are.
    """
    name = "explain" if style == "reason" else f"explain_{style}"
    try:
        return Template.load(name, language, own=own)
    except PromptError as error:
        if "No template" not in str(error):
            raise
        places = [templates_folder(), *([] if own is None else [Path(own)])]
        files = {f.stem for p in places for f in (p / language).glob("explain_*.jinja")}
        known = ["reason", *sorted(f.removeprefix("explain_") for f in files)]
        msg = f"style={style!r} is not known. Expected one of: {', '.join(known)}."
        raise PromptError(msg) from None


def explanations(
    explainer: Explainer, question: Question, rows: Sequence[int], behavior: str, mode: str
) -> list[Explanation]:
    """An explanation of each of some items.

    Args:
        explainer: writes the sentences.
        question: the request.
        rows: catalog rows of the items.
        behavior: what they are recommended for.
        mode: of the evidence; the list is searched again with ``full`` only.
    """
    falls = evidencing.falls(question, rows, mode)
    if not rows:
        return []
    catalog = explainer.catalog
    found = [evidencing.of_item(question, catalog, falls, n) for n in range(len(rows))]
    shots = evidencing.demonstrations(question, rows)
    strongest = evidencing.strongest(falls) if mode == "full" and question.repeats else []
    ranks = evidencing.ranks(question, [Change((e,)) for e in strongest])
    many = len(question.history) - question.events
    older = None if falls.older is None else [Older(many, n) for n in falls.older.tolist()]
    faint = max(FAINT, rounding(question.model, question.options.temperature))
    told = explainer.explain(question.window, rows, behavior, found, older, faint)
    return [
        replace(
            one,
            without=tuple(
                Without(e, found[n][e].item_id, found[n][e].title, ranked.get(rows[n]))
                for e, ranked in zip(strongest, ranks, strict=True)
            ),
            demonstrations=None if shots is None else float(shots[n]),
        )
        for n, one in enumerate(told)
    ]


def rounding(model: LanguageModel, temperature: float) -> float:
    """How far evidence may be off for the model's precision, in nats; 0 in 32 bits.

    Measured with the default model in bfloat16: up to .26 at temperature 1, and some .009 at 37.
    """
    return 0.0 if model.precise else _ROUNDING / temperature


def facts_of(
    template: Template, catalog: Catalog, events: Sequence[Interaction], row: int
) -> Facts:
    """What a sentence that is written on an item may say.

    Args:
        template: of the sentence.
        catalog: the items.
        events: that the prompt shows.
        row: the item's catalog row.
    """
    header = template.header
    fixed = (header["opening"], header["link"].replace("{item}", " "))
    named = [(e.behavior, e.item_id) for e in events if e.item_id is not None]
    return Facts(
        catalog[row],
        tuple((b, one_line(catalog[catalog.row(item_id)].title)) for b, item_id in named),
        {b: v.forms for b, v in template.verbs.items()}
        | {b: template.verb(b).forms for b, _ in named},
        (*fixed, *header.get("words", "").split(), *header.get("passing", "").split()),
        header["opening"],
    )


class Explainer:
    """Writes sentences with one model, one ``explain`` template and one catalog.

    Attributes:
        catalog: the items.
    """

    def __init__(
        self,
        model: LanguageModel,
        template: Template,
        catalog: Catalog,
        *,
        case: str = "as_is",
        max_title_tokens: int = 48,
        listed: bool = True,
    ) -> None:
        """Prepares an explainer.

        Args:
            model: writes the sentences.
            template: with ``NEEDED`` in its header.
            catalog: the items.
            case: how titles are written for the model.
            max_title_tokens: where they are cut for it.
            listed: whether the items are recommended; if not, the template's ``unlisted`` is its
                ``link`` where it has one.

        Raises:
            PromptError: the template's header lacks something.
        """
        if not listed and "unlisted" in template.header:
            template = copy.copy(template)
            template.header = {**template.header, "link": template.header["unlisted"]}
        missing = [key for key in NEEDED if key not in template.header]
        if missing or "{item}" not in template.header["link"]:
            msg = (
                f"Template {template.name!r} writes no explanations: its header lacks "
                f"{', '.join(missing) or '{item} in link'}. Expected {', '.join(NEEDED)}, as in "
                "the shipped explain.jinja."
            )
            raise PromptError(msg)
        most = template.header.get("most", str(MAX_WORDS))
        if not most.isdecimal() or int(most) < 1:
            msg = f"Template {template.name!r} has most: {most}. Expected a number of words."
            raise PromptError(msg)
        self._most_words = int(most)
        self.catalog = catalog
        self._model = model
        self._template = template
        self._encoder = Encoder(model.tokenizer, template.form(case, max_title_tokens))

    def explain(
        self,
        window: History,
        rows: Sequence[int],
        behavior: str,
        evidence: Sequence[Sequence[Evidence]],
        older: Sequence[Older] | None = None,
        faint: float = FAINT,
    ) -> list[Explanation]:
        """One explanation for each of the recommended items.

        Args:
            window: the events that the prompt showed.
            rows: catalog rows of the items.
            behavior: what they are recommended for.
            evidence: for each item that of each event.
            older: for each item that of the events before the window.
            faint: nats below which an event is not said to speak for an item.

        Raises:
            PromptError: the prompt does not fit.
        """
        events = window.interactions
        before = [None] * len(rows) if older is None else older
        top = [
            self._top(events, row, found, faint) for row, found in zip(rows, evidence, strict=True)
        ]
        answer = [
            Explanation(
                self._plain(events, found, o, faint), "template", evidence=tuple(found), older=o
            )
            for found, o in zip(evidence, before, strict=True)
        ]
        write = [n for n, places in enumerate(top) if places]
        written = self._written(
            [self._prompt(window, rows[n], behavior, top[n]) for n in write],
            [[self._row(events[i]) for i in sorted(top[n])] for n in write],
            [facts_of(self._template, self.catalog, events, rows[n]) for n in write],
        )
        for n, (text, rejected) in zip(write, written, strict=True):
            answer[n] = replace(answer[n], rejected=tuple(rejected))
            if text is not None:
                answer[n] = replace(answer[n], text=text, source="generated")
        return answer

    def _row(self, event: Interaction) -> int:
        assert event.item_id is not None
        return self.catalog.row(event.item_id)

    def _top(
        self,
        events: Sequence[Interaction],
        row: int,
        evidence: Sequence[Evidence],
        faint: float,
    ) -> list[int]:
        """The events that may be named: the strongest and others at least half as strong.

        None where the strongest is no item or has the title that is explained: then the plain
        sentence says so.
        """
        order = sorted(range(len(events)), key=lambda i: -evidence[i].nats)
        most = max((e.nats for e in evidence), default=0.0)
        own = self._title(row)
        good = [
            i
            for i in order
            if evidence[i].nats >= max(most / 2, faint)
            and events[i].item_id is not None
            and self._title(self._row(events[i])) != own
        ]
        return good[:NAMED] if good[:1] == order[:1] else []

    def _prompt(
        self, window: History, row: int, behavior: str, top: Sequence[int]
    ) -> EncodedPrompt:
        """The prompt for a sentence on an item: the same for all up to the item."""
        events = window.interactions
        longest = max(len(self._title(r)) for r in [row, *(self._row(events[i]) for i in top)])
        link = len(self._encoder.text(self._template.header["link"]))
        return self._encoder.fit(
            self._template,
            self.catalog,
            window,
            behavior,
            max_tokens=self._model.context - MAX_TOKENS - 2 * longest - link,
            max_events=len(events),
            item=row,
        )

    def _title(self, row: int) -> tuple[int, ...]:
        return self._encoder.title(self._encoder.form.render(self.catalog[row].title))

    def _plain(
        self,
        events: Sequence[Interaction],
        evidence: Sequence[Evidence],
        older: Older | None,
        faint: float,
    ) -> str:
        """The sentence that is built and not written: on the event that speaks most for the item."""
        header = self._template.header
        if not events:
            return header["none"]
        best = max(range(len(events)), key=lambda i: evidence[i].nats)
        if evidence[best].nats < faint:
            earlier = older is not None and older.nats >= faint
            return header.get("earlier", header["silent"]) if earlier else header["silent"]
        verb = self._template.verb(events[best].behavior).past
        return header["plain"].replace("{verb}", verb).replace("{title}", evidence[best].title)

    def _written(
        self,
        prompts: Sequence[EncodedPrompt],
        named: Sequence[Sequence[int]],
        facts: Sequence[Facts],
    ) -> list[tuple[str | None, list[Rejected]]]:
        """For each prompt the sentence that passed, or None, and those that did not."""
        if not prompts:
            return []
        tree, sentences = self._started([p.ids for p in prompts], named, facts)
        self._write(tree, sentences, self._next_of_name)
        found: list[tuple[str | None, list[Rejected]]] = [(None, []) for _ in sentences]
        left = list(range(len(sentences)))
        for step in (self._next_free, self._next_word):
            tried = [
                replace(s, parts=[*s.parts[:-1], []], words=words, span=self._span(s.facts, words))
                for s, words in (
                    (s, self._words_for(s.facts.item)) for s in map(sentences.__getitem__, left)
                )
            ]
            self._write(tree, tried, step)
            for n, sentence in zip(left, tried, strict=True):
                text = self._text(sentence)
                wrong = self._problems(sentence, text)
                if wrong:
                    found[n][1].append(Rejected(text, "; ".join(wrong)))
                else:
                    found[n] = text, found[n][1]
            left = [n for n in left if found[n][0] is None]
            if not left:
                break
        return found

    def _started(
        self,
        prompts: Sequence[Sequence[int]],
        named: Sequence[Sequence[int]],
        facts: Sequence[Facts],
    ) -> tuple[TokenTree, list[_Sentence]]:
        """The prompts as one tree, what they have in common read once, and a sentence on each."""
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
                users[n],
                known,
                self._of_item(known),
                past,
                self._trie(past),
                logits[n],
                int(handles[n]),
            )
            for n, (past, known) in enumerate(zip(named, facts, strict=True))
        ]

    def _trie(self, rows: Sequence[int]) -> TitleTrie:
        return TitleTrie(self._title(r) for r in rows)

    def _write(
        self,
        tree: TokenTree,
        sentences: Sequence[_Sentence],
        step: Callable[[_Sentence], list[int]],
    ) -> None:
        """Goes on with all sentences together until a step of each gives no tokens."""
        live = list(sentences)
        for _ in range(MAX_TOKENS):
            runs = [(s, run) for s in live if (run := step(s))]
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
        """The next tokens of an event's title; after it the link and the item's own title."""
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
        row = self.catalog.row(sentence.facts.item.item_id)
        own = self._title(row)
        link = list(self._encoder.text(before)), list(own), list(self._encoder.text(after))
        sentence.parts += [link[0], row, link[2], []]
        return [*run, *(i for ids in link for i in ids)]

    def _next_free(self, sentence: _Sentence) -> list[int]:
        """The most probable token that is no control token and opens no name.

        It stops at a word that cannot pass.
        """
        part = sentence.parts[-1]
        assert isinstance(part, list)
        if sentence.ended or len(part) >= MAX_FREE:
            return []
        logits = sentence.logits.clone()
        logits[self._never] = -torch.inf
        part.append(int(logits.argmax()))
        text = str(self._model.tokenizer.decode(part))
        sentence.ended = text.rstrip().endswith(_ENDS)
        return [] if sentence.ended or foreign(text, sentence.tail) else part[-1:]

    def _of_item(self, facts: Facts) -> Facts:
        """What may be said after the names: words of the item, none of opening and link."""
        header = self._template.header
        return replace(facts, plain=(header.get("words", ""), header.get("passing", "")))

    @cached_property
    def _never(self) -> torch.Tensor:
        """The ids that a freely written sentence may not have."""
        vocabulary = self._model.tokenizer.get_vocab()
        quotes = {i for t, i in vocabulary.items() if any(q in t for q in _QUOTES)}
        return torch.tensor(sorted(quotes | self._encoder.control_ids))

    def _next_word(self, sentence: _Sentence) -> list[int]:
        """The next token of a phrase, or of the end."""
        if sentence.ended:
            return []
        prefix, size = sentence.prefix, len(sentence.prefix)
        said = sentence.words.get(prefix, "")  # a whole phrase, so that another may begin
        within: set[int] = set()
        if prefix:
            words = self._following(sentence, sentence.used)
            within = {ids[size] for ids in words if len(ids) > size and ids[:size] == prefix}
        allowed = set(within)
        if said or not prefix:
            used = [*sentence.used, said] if said else sentence.used
            words = self._following(sentence, used)
            allowed |= {ids[0] for ids, word in words.items() if word != said}
        if not allowed:
            return []
        choices = sorted(allowed)
        token = choices[int(sentence.logits[torch.tensor(choices)].argmax())]
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

    def _following(self, sentence: _Sentence, used: Sequence[str]) -> dict[tuple[int, ...], str]:
        """What may follow some phrases: a plain word after each, another after that, and the end."""
        plain, words = self._plain_words, sentence.words
        done = [word for phrase in used if phrase not in plain for word in phrase.split()]
        least, most = sentence.span
        before = bool(used) and used[-1] not in plain

        def adds(phrase: str, said: Sequence[str]) -> bool:
            more = phrase.split()
            return len(said) + len(more) <= most and not set(more) & set(said)

        def goes_on(said: Sequence[str]) -> bool:
            return any(
                p and p not in plain and adds(p, said) and len(said) + len(p.split()) >= least
                for p in words.values()
            )

        def fits(phrase: str) -> bool:
            if not phrase:
                return before and len(done) >= least
            if phrase in plain:
                return before and goes_on(done)
            if before or not adds(phrase, done):
                return False
            said = [*done, *phrase.split()]
            return len(said) >= least or goes_on(said)

        return {ids: phrase for ids, phrase in words.items() if fits(phrase)}

    @cached_property
    def _plain_words(self) -> frozenset[str]:
        return frozenset(self._template.header.get("words", "").split())

    @cached_property
    def _end(self) -> str:
        return "。" if self._template.header.get("language") == "zh" else "."

    @cached_property
    def _phrases(self) -> Phrases:
        empty = self._template.header.get("empty", "").split()
        return Phrases(self.catalog, frozenset(empty))

    def _words_for(self, item: Item) -> dict[tuple[int, ...], str]:
        """Token ids -> phrase: what the catalog says of an item, plain words, and "" for the end."""
        words = self._phrases.of(item) | self._plain_words
        spaced = " " if self._encoder.form.lead.startswith(" ") else ""
        found = {self._encoder.text(f"{spaced}{w}"): w for w in sorted(words)}
        found[self._encoder.text(self._end)] = ""
        return {ids: w for ids, w in found.items() if ids}

    def _span(self, facts: Facts, phrases: Mapping[tuple[int, ...], str]) -> tuple[int, int]:
        """How many words a sentence needs and may have: fewer than there are.

        In scripts without spaces one piece will do, since it may be several words.
        """
        if facts.script in SPACELESS:
            return 1, self._most_words
        own = {w for p in phrases.values() if p not in self._plain_words for w in p.split()}
        return LEAST, min(max(len(own) - 1, LEAST), self._most_words)

    def _text(self, sentence: _Sentence) -> str:
        """A sentence as people read it."""
        form = self._encoder.form
        decode = self._model.tokenizer.decode
        text = self._template.header["opening"]
        ids: list[int] = []
        for part in sentence.parts:
            if isinstance(part, int):
                title = self.catalog[part].title
                text += f"{form.lead}{one_line(title)}{form.terminator}"
                ids += self._title(part)
            else:
                before = str(decode(ids))
                ids += part
                text += str(decode(ids))[len(before) :]
        return one_line(text)

    def _problems(self, sentence: _Sentence, text: str) -> tuple[str, ...]:
        """What is wrong with a sentence that was written."""
        if "\ufffd" in text:
            return ("has characters that are none",)
        last = sentence.parts[-1]
        assert isinstance(last, list)
        said = str(self._model.tokenizer.decode(last))
        found = problems(text, sentence.facts)
        if not found and foreign(f"{said} ", sentence.tail):
            found = ("says of the item what only opening and link may say",)
        if not sentence.ended:
            return found or ("has no end",)
        return found or ("says too little",) * self._says_little(said, sentence.facts.item)

    def _says_little(self, tail: str, item: Item) -> bool:
        """Whether what stands after the names says no more than the item's title, or a word.

        What an attribute is called says nothing: of any item it could be said that it has a brand.
        """
        passing = self._template.header.get("passing", "").split()
        values = " ".join([item.title, *map(str, item.known.values())]).lower()
        called = set(LETTERS.findall(" ".join(item.known).replace("_", " ").lower()))
        empty = {*self._plain_words, *passing} | (called - set(LETTERS.findall(values)))
        words = [w for w in LETTERS.findall(tail.lower()) if w not in empty]
        name = "".join(LETTERS.findall(item.title.lower()))
        if any(script(w[0]) in SPACELESS for w in words):
            rest = "".join(words)
            for plain in sorted(self._plain_words, key=len, reverse=True):
                rest = rest.replace(plain, "")
            return rest in {"", name}
        return "".join(words) == name or len(words) < LEAST
