"""Explain why items are recommended, with the evidence from each event and a sentence.

The model writes a sentence that names one of the events with the strongest evidence (see
``writer``). If the sentence fails the check twice, or if no event supports the item, a sentence
from the template is used instead.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from genrec.config import EXPLAIN
from genrec.data.catalog import Catalog
from genrec.data.events import History, Interaction
from genrec.errors import PromptError
from genrec.explain import evidence as evidencing
from genrec.explain.claims import Facts
from genrec.explain.evidence import Change, Question
from genrec.explain.types import Evidence, Explanation, Older, Without
from genrec.explain.writer import MAX_TOKENS, MAX_WORDS, Writer
from genrec.models.language_model import LanguageModel
from genrec.models.stopping import stoppable
from genrec.prompts.encoder import EncodedPrompt, Encoder, PromptBudget
from genrec.prompts.template import Template
from genrec.text import one_line

NAMED = 3  # the model chooses the event to name from at most this many events
FAINT = 0.01  # an event is said to support an item only if its evidence, in nats, is at least this
_ROUNDING = (
    0.25  # the error, in nats, that half precision may cause in a difference at temperature 1
)
NEEDED = (
    "opening",
    "link",
    "plain",
    "none",
    "silent",
)  # the keys that a template's header must have


def explain_items(
    explainer: Explainer, question: Question, rows: Sequence[int], behavior: str, mode: str
) -> list[Explanation]:
    """Explain each of the given items.

    Args:
        explainer: the explainer that writes the sentences.
        question: the request to explain.
        rows: the catalog rows of the items.
        behavior: the behavior for which the items are recommended.
        mode: the method for measuring evidence, ``full`` or ``fast``. With ``full``, the search is
            also repeated without each of the strongest events.

    Returns:
        An explanation for each item, in the order of the rows.
    """
    drops = evidencing.measure_drops(question, rows, mode)
    if not rows:
        return []
    catalog = explainer.catalog
    evidence = [
        evidencing.collect_evidence(question, catalog, drops, n)
        for n in stoppable(range(len(rows)))
    ]
    shots = evidencing.measure_demonstrations(question, rows)
    strongest = evidencing.find_strongest(drops) if mode == "full" and question.repeats else []
    ranks = evidencing.search_again(question, [Change((e,)) for e in strongest])
    n_older = len(question.history) - question.events
    older = None if drops.older is None else [Older(n_older, n) for n in drops.older.tolist()]
    faint = max(FAINT, rounding_error(question))
    explained = explainer.explain(question.window, rows, behavior, evidence, older, faint)
    return [
        replace(
            explanation,
            without=tuple(
                Without(e, evidence[n][e].item_id, evidence[n][e].title, ranked.get(rows[n]))
                for e, ranked in zip(strongest, ranks, strict=True)
            ),
            demonstrations=None if shots is None else float(shots[n]),
            context=None if drops.context is None else float(drops.context[n]),
        )
        for n, explanation in enumerate(explained)
    ]


def rounding_error(question: Question) -> float:
    """Estimate the largest error in evidence, in nats, that the model's precision can cause.

    The error is 0 for 32-bit models, and if the prior alone ranks items. For the default model in
    bfloat16, the measured error was up to 0.26 at temperature 1, and about 0.009 at temperature 37.

    Args:
        question: the request that is explained.
    """
    exact = question.role == EXPLAIN or question.model.precise
    return 0.0 if exact else _ROUNDING / question.options.temperature


def collect_facts(
    template: Template, catalog: Catalog, events: Sequence[Interaction], row: int
) -> Facts:
    """Collect the facts that a sentence about an item may state.

    Args:
        template: the template for the sentence.
        catalog: the items.
        events: the events that the prompt shows.
        row: the catalog row of the item.
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
    """Writes sentences that explain why items were recommended.

    The sentences are written by a language model with an ``explain`` template.

    Attributes:
        catalog: the items.
        writer: the object that writes sentences with the model.
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
        writes: bool = True,
    ) -> None:
        """Check the template's header, and create the writer of the sentences.

        Args:
            model: the language model that writes the sentences.
            template: an ``explain`` template whose header has the keys in ``NEEDED``.
            catalog: the items.
            case: the letter case of the titles that the model reads.
            max_title_tokens: the maximum number of tokens in these titles; longer titles are
                truncated.
            listed: True if the items are recommended. If False, the sentences use the template's
                ``unlisted`` text instead of its ``link`` text.
            writes: True if the model writes the sentences. If False, all are the template's fixed ones.

        Raises:
            PromptError: the template's header is incomplete.
        """
        if not listed and "unlisted" in template.header:
            template = copy.copy(template)
            template.header = {**template.header, "link": template.header["unlisted"]}
        missing = [key for key in NEEDED if key not in template.header]
        if missing or "{item}" not in template.header["link"]:
            msg = (
                f"Template {template.name!r} cannot be used for explanations, because its header lacks "
                f"{', '.join(missing) or '{item} in link'}. Expected the keys {', '.join(NEEDED)}; see "
                "the shipped template explain.jinja."
            )
            raise PromptError(msg)
        most = template.header.get("most", str(MAX_WORDS))
        if not most.isdecimal() or int(most) < 1:
            msg = (
                f"Template {template.name!r} has 'most: {most}'. Expected a whole number of at "
                "least 1, the maximum number of words."
            )
            raise PromptError(msg)
        self.catalog = catalog
        self._model, self._writes = model, writes
        self._template = template
        self._encoder = Encoder(model.tokenizer, template.form(case, max_title_tokens))
        self.writer = Writer(model, template, self._encoder, catalog, max_words=int(most))

    def explain(
        self,
        window: History,
        rows: Sequence[int],
        behavior: str,
        evidence: Sequence[Sequence[Evidence]],
        older: Sequence[Older] | None = None,
        faint: float = FAINT,
    ) -> list[Explanation]:
        """Explain each of the given items in a sentence.

        Args:
            window: the events that the prompt showed.
            rows: the catalog rows of the items.
            behavior: the behavior for which the items are recommended.
            evidence: for each item, the evidence from each event.
            older: for each item, the joint evidence from the events before the window; None if
                there is no such evidence.
            faint: the minimum evidence, in nats, for a sentence to say that an event supports an
                item.

        Raises:
            PromptError: the prompt does not fit the model's context.
        """
        events = window.interactions
        before = [None] * len(rows) if older is None else older
        nameable = [
            self._nameable(events, row, parts, faint)
            for row, parts in stoppable(zip(rows, evidence, strict=True))
        ]
        answer = [
            Explanation(
                self._plain_sentence(events, parts, o, faint),
                "template",
                evidence=tuple(parts),
                older=o,
            )
            for parts, o in stoppable(zip(evidence, before, strict=True))
        ]
        write = [n for n, indices in enumerate(nameable) if indices and self._writes]
        results = self.writer.write(
            [self._prompt(window, rows[n], behavior, nameable[n]).ids for n in stoppable(write)],
            [[self._row(events[i]) for i in sorted(nameable[n])] for n in write],
            [
                collect_facts(self._template, self.catalog, events, rows[n])
                for n in stoppable(write)
            ],
        )
        for n, (text, rejected) in zip(write, results, strict=True):
            answer[n] = replace(answer[n], rejected=tuple(rejected))
            if text is not None:
                answer[n] = replace(answer[n], text=text, source="generated")
        return answer

    def _row(self, event: Interaction) -> int:
        assert event.item_id is not None
        return self.catalog.row(event.item_id)

    def _nameable(
        self,
        events: Sequence[Interaction],
        row: int,
        evidence: Sequence[Evidence],
        faint: float,
    ) -> list[int]:
        """Return the indices of the events that a sentence may name.

        These are the event with the strongest evidence and other events whose evidence is at least
        half as strong. No event may be named if the strongest event has no item, or if its item has
        the same title as the explained item. In that case, the sentence comes from the template.
        """
        order = sorted(range(len(events)), key=lambda i: -evidence[i].nats)
        most = max((e.nats for e in evidence), default=0.0)
        own = self.writer.title_ids(row)
        strong = [
            i
            for i in order
            if evidence[i].nats >= max(most / 2, faint)
            and events[i].item_id is not None
            and self.writer.title_ids(self._row(events[i])) != own
        ]
        return strong[:NAMED] if strong[:1] == order[:1] else []

    def _prompt(
        self, window: History, row: int, behavior: str, named: Sequence[int]
    ) -> EncodedPrompt:
        """Create the prompt for a sentence about an item.

        The prompts for all items have the same beginning, so the model reads it only once.
        """
        events = window.interactions
        title_ids = self.writer.title_ids
        longest = max(len(title_ids(r)) for r in [row, *(self._row(events[i]) for i in named)])
        link = len(self._encoder.text(self._template.header["link"]))
        return self._encoder.fit(
            self._template,
            self.catalog,
            window,
            behavior,
            PromptBudget(self._model.context - MAX_TOKENS - 2 * longest - link, len(events)),
            item=row,
        )

    def _plain_sentence(
        self,
        events: Sequence[Interaction],
        evidence: Sequence[Evidence],
        older: Older | None,
        faint: float,
    ) -> str:
        """Return a fixed sentence from the template that names the event with the most evidence.

        If no event supports the item, the sentence says so.
        """
        header = self._template.header
        if not events:
            return header["none"]
        best = max(range(len(events)), key=lambda i: evidence[i].nats)
        if evidence[best].nats < faint:
            earlier = older is not None and older.nats >= faint
            return header.get("earlier", header["silent"]) if earlier else header["silent"]
        verb = self._template.verb(events[best].behavior).past
        return header["plain"].replace("{verb}", verb).replace("{title}", evidence[best].title)
