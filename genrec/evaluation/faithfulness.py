"""Measure whether the events that explanations name really affect the scores.

For each user's first recommendation, one, two and then three events are left out of the history.
Events that the sentence names are left out first, followed by those with the most evidence. If a
sentence is faithful, the score drops when the events that it names are left out. For comparison,
the same is done with the most recent events, with the events whose titles are most similar to the
item's title, and with random events. The score is the one used for ranking, including the prior if
there is one. It is measured with a different template from the one used for the evidence and the
sentence. In a second measurement, only these events are kept, which shows whether they are
sufficient. Finally, every sentence is checked again.

Sentences are deterministic, because the most likely title, token or word is chosen at each step.
Agreement between seeds is therefore not measured. The seed only affects demonstrations and samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec.config import PROTOCOL
from genrec.data import protocols
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import Interaction
from genrec.data.protocols import Case
from genrec.errors import DataError, RequestError
from genrec.evaluation.evaluator import fitted_on, resolve_before
from genrec.evaluation.faithfulness_results import SIZES, WAYS, Judgement
from genrec.evaluation.faithfulness_results import Faithfulness as Faithfulness
from genrec.evaluation.run_log import ANSWERS_VERSION, read_whole_lines
from genrec.evaluation.systems import (
    RecommenderSystem,
    check_compatible,
    check_counted,
    default_name,
    restrict,
)
from genrec.explain.claims import Facts, find_names, find_problems
from genrec.files import append_text
from genrec.matching.encoders import load_embedder
from genrec.matching.vectors import title_vectors
from genrec.prompts.template import Template
from genrec.recommender import Recommender
from genrec.text import one_line, title_key
from genrec.types import FloatArray

if TYPE_CHECKING:
    from genrec.explain.types import Explanation


LEAST_EVENTS = 4  # users with fewer events in the prompt are left out
USERS = 100
_TEMPLATES = (
    "sentence",
    "next_item",
)  # scores are measured under the first of these that is not the recommender's own template


def faithfulness(
    dataset: Dataset,
    recommender: Recommender,
    *,
    users: int | None = USERS,
    protocol: str | None = None,
    split: str = "test",
    other: str | None = None,
    style: str = "reason",
    encoder: str = "minilm",
    fit_on: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
    log: Callable[[str], None] = lambda message: None,
) -> Faithfulness:
    """Measure whether a recommender's explanations name the events that its scores depend on.

    Args:
        dataset: a dataset with a split. It is split again if the protocol needs a different split.
        recommender: a recommender on the dataset's catalog.
        users: the size of a fixed random sample of users who have at least ``LEAST_EVENTS`` events
            in the prompt; None for all such users.
        protocol: see ``genrec.evaluate``; ``candidates-20`` is not supported.
        split: ``test`` or ``validation``.
        other: the template used to measure the drop in the score. None means ``sentence``,
            or ``next_item`` if ``sentence`` is the recommender's own template. Prompts with this
            template show no demonstrations, and the prior keeps the weight that it has under the
            recommender's own template.
        style: the style of the sentences.
        encoder: the encoder used to compare titles. It is ``ngrams`` or a name that
            ``genrec.matching.encoders.load_embedder`` accepts. Titles that the encoder cannot read
            are compared by character n-grams.
        fit_on: the part of the data that is used to build the recommender's prior; see
            ``genrec.evaluate``.
        seed: the random seed for the sample and the random events.
        out: a JSONL file that stores the result for each user, from which an interrupted run can be
            resumed; None to store nothing.
        progress: a function that is called with the number of users processed so far.
        log: a function that is called with a line of text before each slow step.

    Raises:
        RequestError: an argument is invalid, or no user has enough events.
        DataError: the file was written by a run with other data or settings.
        PromptError: the template or style does not exist.
    """
    protocol = protocol or protocols.default_protocol(dataset)
    if protocol not in protocols.PROTOCOLS:
        msg = (
            f"protocol={protocol!r} ranks candidates, but explanations are only available for the "
            f"top items of the whole catalog. Expected one of: {', '.join(protocols.PROTOCOLS)}."
        )
        raise RequestError(msg)
    dataset = protocols.apply_protocol(dataset, protocol)
    before = resolve_before(fit_on, protocol, split)
    cases = protocols.cases(dataset, protocol, split)
    check_counted(recommender, split)
    ours = _prepare(recommender, protocols.withhold(dataset, split), before)
    cases = _with_enough(cases, ours.settings.max_events)
    judge = Judge(ours, with_other_template(ours, other), style, encoder, seed, log)
    chosen = protocols.sample(cases, users, seed)
    about = [protocols.fingerprint(dataset), protocol, split, before, judge.key, ANSWERS_VERSION]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    log_path = None if out is None else Path(out)
    known = {} if log_path is None else _read(log_path, key)
    progress(sum(c.user_id in known for c in chosen))
    for case in chosen:
        if case.user_id in known:
            continue
        known[case.user_id] = judge.judge(case)
        if log_path is not None:
            line = json.dumps({"key": key, **asdict(known[case.user_id])}, ensure_ascii=False)
            append_text(log_path, line + "\n")
        progress(sum(c.user_id in known for c in chosen))
    return Faithfulness(
        dataset.info.name,
        default_name(recommender),
        protocol,
        split,
        fitted_on(before),
        ours.template.name,
        judge.other.template.name,
        style,
        encoder,
        seed,
        [known[case.user_id] for case in chosen],
    )


def with_other_template(recommender: Recommender, template: str | None = None) -> Recommender:
    """Return a copy of a recommender with another template and without demonstrations.

    Args:
        recommender: the recommender.
        template: the name of the template; None for one that differs from the recommender's own.

    Raises:
        RequestError: the template is the recommender's own template.
        PromptError: the template does not exist.
    """
    own = recommender.template.name
    template = template or next(t for t in _TEMPLATES if t != own)
    if template == own:
        msg = (
            f"other={template!r} is the recommender's own template, which is already used to find "
            "the evidence. Expected a different template."
        )
        raise RequestError(msg)
    fusion = recommender.fusing
    changes: dict[str, Any] = {"node_temperature": fusion.temperature}
    if fusion.prior != "none":
        changes |= {"prior_weight": fusion.weight, "fusion": fusion.fusion}
    if fusion.prior != "own":
        changes["prior"] = fusion.prior
    return recommender.with_settings(template=template, few_shot=0, tuned=None, **changes)


def _prepare(recommender: Recommender, dataset: Dataset, before: str) -> Recommender:
    """Check that a recommender's explanations can be evaluated, and refit its prior.

    The returned recommender knows only the events of the dataset, which does not contain the
    targets. Its prior counts only the events before the given split.
    """
    if recommender.settings.decoder == "match":
        msg = (
            "Explanations cannot be evaluated with decoder='match', because its scores are only the "
            "fraction of sampled texts that name an item. Expected decoder='trie'."
        )
        raise RequestError(msg)
    check_compatible(recommender, dataset)
    return restrict(recommender, dataset, before)


def _with_enough(cases: Sequence[Case], max_events: int) -> list[Case]:
    enough = [c for c in cases if min(len(c.shown), max_events) >= LEAST_EVENTS]
    if not enough:
        longest = max(len(c.shown) for c in cases)
        msg = (
            f"No user has {LEAST_EVENTS} or more events in the prompt. The longest of the {len(cases):,} "
            f"histories has {longest} events, and max_events is {max_events}. Expected at least one "
            "such user. Use another protocol, split or max_events."
        )
        raise RequestError(msg)
    return enough


def _read(log_path: Path, key: str) -> dict[str, Judgement]:
    """Read the judgements in a log, and return them keyed by user id.

    Raises:
        DataError: the path is a folder, or the log was written with another key.
    """
    if log_path.is_dir():
        msg = f"{log_path} is a folder. Expected the name of a file, such as {log_path / 'explanations.jsonl'}."
        raise DataError(msg)
    known = {f.name for f in fields(Judgement)}
    required = {f.name for f in fields(Judgement) if f.default is MISSING}
    judgements = {}
    for entry in read_whole_lines(log_path):
        if entry.pop("key", None) != key or not required <= set(entry) <= known:
            msg = (
                f"{log_path} was written for different data or with a different protocol, model or "
                "settings. Expected a log of the same run. Choose another file, or delete this one."
            )
            raise DataError(msg)
        judgements[entry["user_id"]] = Judgement(**entry)
    return judgements


class Judge:
    """Judges the explanation of each user's first recommendation.

    Attributes:
        other: the recommender with the other template, which is used to measure scores.
    """

    def __init__(
        self,
        ours: Recommender,
        other: Recommender,
        style: str,
        encoder: str,
        seed: int,
        log: Callable[[str], None],
    ) -> None:
        from genrec.explain.styles import load_explain_template

        self._ours, self.other, self._style, self._seed = ours, other, style, seed
        settings = ours.settings
        self._template = load_explain_template(style, settings.language, settings.prompts)
        self._like = Likeness(ours.catalog, encoder, log)

    @property
    def key(self) -> str:
        """A string that identifies everything that a judgement depends on, except the data."""
        both = [
            f"{r.exclude_seen} {RecommenderSystem(r, '').key}" for r in (self._ours, self.other)
        ]
        return " ".join([*both, self._template.hash, self._like.encoder, str(self._seed)])

    def judge(self, case: Case) -> Judgement:
        """Judge the explanation of the first recommendation for one user.

        Raises:
            RequestError: not even one event fits into the user's prompt.
        """
        catalog, history = self._ours.catalog, case.history
        shown = [r.prompt(history).prompt.events for r in (self._ours, self.other)]
        # The longer template shows fewer events; both templates use that number.
        if shown[0] != shown[1]:
            history = history.latest(min(shown))
        events = history.latest(min(shown)).interactions
        if not events:
            msg = (
                f"The prompt for user {case.user_id!r} has no room for even one event. Raise "
                "max_prompt_tokens."
            )
            raise RequestError(msg)
        (first,) = self._ours.recommend(
            history, 1, options=PROTOCOL, explain=True, style=self._style
        )
        why = first.explanation
        assert why is not None
        row = catalog.row(first.item_id)
        facts = collect_facts(why, self._template, catalog, events, row)
        named = find_named_events(why, facts, catalog, events)
        evidence = [e.nats for e in why.evidence]
        likeness = self._like.of(first.title, [_title(catalog, e) for e in events])
        digest = hashlib.sha256(f"{self._seed} {case.user_id}".encode()).digest()
        chance = np.random.default_rng(list(digest)).permutation(len(events)).tolist()
        by_way = order_events(named, evidence, likeness, chance)
        cut = {(w, n): tuple(sorted(order[:n])) for w, order in by_way.items() for n in SIZES}
        rest = {(w, n): tuple(sorted(order[n:])) for w, order in by_way.items() for n in SIZES}
        singles = [(place,) for place in range(len(events))]
        changes = list(dict.fromkeys([*singles, *cut.values(), *rest.values()]))
        falls = self.other.falls(history, first.item_id, changes)
        fall = dict(zip(changes, falls, strict=True))
        return Judgement(
            case.user_id,
            first.item_id,
            why.text,
            why.source,
            [[r.text, r.why] for r in why.rejected],
            list(find_problems(one_line(why.text), facts)),
            named,
            [n for n, e in enumerate(events) if e.item_id == first.item_id],
            evidence,
            [fall[s] for s in singles],
            {way: [fall[cut[way, n]] for n in SIZES] for way in WAYS},
            {way: [fall[rest[way, n]] for n in SIZES] for way in WAYS},
        )


def _title(catalog: Catalog, event: Interaction) -> str | None:
    """Return the title of an event's item, or None if the event consists only of text."""
    return None if event.item_id is None else catalog[catalog.row(event.item_id)].title


def collect_facts(
    why: Explanation,
    template: Template,
    catalog: Catalog,
    events: Sequence[Interaction],
    row: int,
) -> Facts:
    """Collect the facts that the sentence of an explanation may state.

    A sentence that comes from the template may also contain the template's own words and the text
    of events without items.

    Args:
        why: the explanation.
        template: the template of the sentence.
        catalog: the items.
        events: the events shown in the prompt.
        row: the catalog row of the recommended item.
    """
    from genrec.explain.sentences import collect_facts

    facts = collect_facts(template, catalog, events, row)
    if why.source == "generated":
        return facts
    header = template.header
    plain = header["plain"].replace("{verb}", " ").replace("{title}", " ")
    texts = [(e.behavior, one_line(e.text or "")) for e in events if e.item_id is None]
    return replace(
        facts,
        events=(*facts.events, *texts),
        verbs={**facts.verbs, **{b: template.verb(b).forms for b, _ in texts}},
        plain=(*facts.plain, plain, header["none"], header["silent"], header.get("earlier", "")),
        opening="",
    )


def find_named_events(
    why: Explanation, facts: Facts, catalog: Catalog, events: Sequence[Interaction]
) -> list[int]:
    """Return the indices of the events that an explanation's sentence names by title or text.

    A generated sentence also names the recommended item. This does not count as naming an event,
    even if the user has already interacted with the item.

    Args:
        why: the explanation.
        facts: the facts that the sentence may state.
        catalog: the items.
        events: the events shown in the prompt.
    """
    named = {name.lower() for name in find_names(one_line(why.text), facts)}
    if why.source == "generated":
        named.discard(one_line(facts.item.title).lower())
    shown = (_title(catalog, e) or e.text or "" for e in events)
    return [n for n, text in enumerate(shown) if one_line(text).lower() in named]


def order_events(
    named: Sequence[int],
    evidence: Sequence[float],
    likeness: Sequence[float],
    chance: Sequence[int],
) -> dict[str, list[int]]:
    """Order the events by each of the methods that choose which events to leave out.

    Args:
        named: the indices of the events that the sentence names.
        evidence: the evidence of each event.
        likeness: the similarity of each event's title to the item's title.
        chance: the indices of the events in random order.

    Returns:
        For each method, the indices of the events in the order in which they are left out.

    >>> order_events([0], [0.5, 2.0, 1.0], [0.1, 0.0, 0.9], [1, 2, 0])["named"]
    [0, 1, 2]
    """
    strongest = np.argsort(-np.array(evidence), kind="stable").tolist()
    return {
        "named": sorted(strongest, key=lambda place: place not in named),
        "evidence": strongest,
        "recent": list(range(len(evidence)))[::-1],
        "similar": np.argsort(-np.array(likeness), kind="stable").tolist(),
        "random": list(chance),
    }


class Likeness:
    """Measures how similar titles are, using an encoder or character n-grams.

    Attributes:
        encoder: the name of the encoder.
    """

    def __init__(
        self, catalog: Catalog, encoder: str, log: Callable[[str], None] = lambda message: None
    ) -> None:
        """Load the encoder, unless it is ``ngrams``.

        Args:
            catalog: the items.
            encoder: the name of the encoder.
            log: a function that is called with a line of text before each slow step.

        Raises:
            ModelError: the encoder could not be downloaded or loaded.
        """
        self.encoder, self._catalog, self._log = encoder, catalog, log
        self._embedder = None if encoder == "ngrams" else load_embedder(encoder, log=log)
        self._known: dict[str, FloatArray] = {}

    def of(self, title: str, others: Sequence[str | None]) -> list[float]:
        """Compute the cosine similarity between a title and each of the other titles.

        If the encoder cannot read one of the titles, character n-grams are used for all of them.

        Args:
            title: a title.
            others: the titles to compare it with. A missing title (None) gets -2, which is below
                any cosine.
        """
        texts = [None if t is None else title_key(t) for t in (title, *others)]
        distinct = list(dict.fromkeys(t for t in texts if t is not None))
        if self._embedder is not None and all(map(self._embedder.coverage.reads, distinct)):
            new = [t for t in distinct if t not in self._known]
            if new:
                vectors = np.asarray(self._embedder.embed(new), dtype=np.float64)
                self._known.update(zip(new, vectors, strict=True))
            one = self._known[str(texts[0])]
            cosine = {t: float(self._known[t] @ one) for t in distinct}
        else:
            rows = {t: self._row[t] for t in distinct}
            vectors = self._ngrams[list(rows.values())]
            one = self._ngrams[rows[str(texts[0])]]
            values = (vectors @ one.T).toarray()[:, 0].tolist()
            cosine = dict(zip(rows, map(float, values), strict=True))
        return [-2.0 if t is None else cosine[t] for t in texts[1:]]

    @cached_property
    def _ngrams(self) -> Any:
        return title_vectors(self._catalog, "ngrams", self._log)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {title_key(t): row for row, t in enumerate(self._catalog.titles)}
