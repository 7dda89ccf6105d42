"""Whether explanations are true of the model: what happens without the events that a sentence names.

For the first recommendation of some users the events that its sentence names are left out, and then
those with the most evidence, one, two and three together; a faithful sentence names what the score
falls without. Beside it the most recent events, those whose titles are most like the item's, and
random ones. The score is that which ranks, with the prior where there is one, under another template
than the one that evidence and sentence come from. Keeping these events alone shows whether they are
enough. Every sentence is given to the checker once more.

Sentences are written without chance: the likest title, token and word each time. So there is no
agreement between seeds to measure; a seed changes what demonstrations or draws are, not a sentence.
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

from genrec import __version__
from genrec.data import protocols
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.events import Interaction
from genrec.data.protocols import Case
from genrec.errors import DataError, RequestError
from genrec.evaluation.evaluator import fitted_on, resolve_before
from genrec.evaluation.faithfulness_results import SIZES, WAYS, Judged
from genrec.evaluation.faithfulness_results import Faithfulness as Faithfulness
from genrec.evaluation.run_log import read_whole_lines
from genrec.evaluation.systems import (
    RecommenderSystem,
    check_compatible,
    default_name,
    with_prior_fitted_before,
)
from genrec.explain.claims import Facts, find_names, find_problems
from genrec.matching.encoders import load_embedder
from genrec.matching.vectors import title_vectors
from genrec.prompts.template import Template
from genrec.recommender import Recommender
from genrec.text import normalized, one_line
from genrec.types import FloatArray

if TYPE_CHECKING:
    from genrec.explain.types import Explanation


LEAST_EVENTS = 4  # of a user
USERS = 100
_TEMPLATES = ("sentence", "next_item")  # to test under, the first that is not the own


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
    """Measures whether a recommender's explanations are true of it.

    Args:
        dataset: with a split; it is split anew where the protocol needs another one.
        recommender: on the dataset's catalog.
        users: how many of those with at least ``LEAST_EVENTS`` events in the prompt, the same
            seeded sample every time; all where None.
        protocol: as of ``genrec.evaluate``, but for ``candidates-20``.
        split: ``test`` or ``validation``.
        other: the template under which the fall of the score is measured; None is ``sentence``, or
            ``next_item`` where that is the recommender's own. Demonstrations are not shown under it,
            and the prior counts as it does under the recommender's own.
        style: of the sentences.
        encoder: what compares titles: a name as for ``genrec.embedding.load_embedder``, or
            ``ngrams``, which it is, too, for titles that the encoder does not read.
        fit_on: what the recommender's prior counts; see ``genrec.evaluate``.
        seed: of the sample and of the random events.
        out: a JSONL file for what was found of each user; a run that was killed goes on from there.
        progress: called with how many users are done.
        log: called with a line of text before each slow step.

    Raises:
        RequestError: an argument cannot be used, or nobody has enough events.
        DataError: the file holds another run's lines.
        PromptError: there is no such template or style.
    """
    protocol = protocol or protocols.default_protocol(dataset)
    if protocol not in protocols.PROTOCOLS:
        msg = (
            f"protocol={protocol!r} with explanations, which are of the first of all items. "
            f"Expected one of: {', '.join(protocols.PROTOCOLS)}."
        )
        raise RequestError(msg)
    dataset = protocols.apply_protocol(dataset, protocol)
    before = resolve_before(fit_on, protocol, split)
    ours = _measured(recommender, dataset, before)
    cases = _with_enough(protocols.cases(dataset, protocol, split), ours.settings.max_events)
    judge = _Judge(ours, elsewhere(ours, other), style, encoder, seed, log)
    chosen = protocols.sample(cases, users, seed)
    about = [protocols.fingerprint(dataset), protocol, split, before, judge.key, __version__]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    log_path = None if out is None else Path(out)
    known = {} if log_path is None else _read(log_path, key)
    progress(sum(c.user_id in known for c in chosen))
    for case in chosen:
        if case.user_id in known:
            continue
        known[case.user_id] = judge.judged(case)
        if log_path is not None:
            line = json.dumps({"key": key, **asdict(known[case.user_id])}, ensure_ascii=False)
            with log_path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
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


def elsewhere(recommender: Recommender, template: str | None = None) -> Recommender:
    """A recommender under another template, without demonstrations, and the same in all else.

    Args:
        recommender: the one.
        template: a name; None for one that is not its own.

    Raises:
        RequestError: it is the recommender's own.
        PromptError: there is none of that name.
    """
    own = recommender.template.name
    template = template or next(t for t in _TEMPLATES if t != own)
    if template == own:
        msg = f"other={template!r} is the template that evidence is found under. Expected another."
        raise RequestError(msg)
    fused = recommender.fusing
    changes: dict[str, Any] = {"node_temperature": fused.temperature}
    if fused.prior != "none":
        changes |= {"prior_weight": fused.weight, "fusion": fused.fusion}
    if fused.prior != "own":
        changes["prior"] = fused.prior
    return recommender.with_settings(template=template, few_shot=0, tuned=None, **changes)


def _measured(recommender: Recommender, dataset: Dataset, before: str) -> Recommender:
    """The recommender with a prior that counts what it may."""
    if recommender.settings.decoder == "match":
        msg = (
            "Explanations of a recommender with decoder='match', whose scores are shares of texts. "
            "Expected decoder='trie'."
        )
        raise RequestError(msg)
    check_compatible(recommender, dataset)
    return with_prior_fitted_before(recommender, dataset, before)


def _with_enough(cases: Sequence[Case], max_events: int) -> list[Case]:
    found = [c for c in cases if min(len(c.shown), max_events) >= LEAST_EVENTS]
    if not found:
        longest = max(len(c.shown) for c in cases)
        msg = (
            f"Nobody has {LEAST_EVENTS} events or more to explain a recommendation by: the longest of "
            f"{len(cases):,} histories has {longest}, and max_events is {max_events}. Expected at "
            "least one such user; use another protocol, split or max_events."
        )
        raise RequestError(msg)
    return found


def _read(log_path: Path, key: str) -> dict[str, Judged]:
    """What a log holds."""
    if log_path.is_dir():
        msg = f"{log_path} is a folder. Expected the name of a file, such as {log_path / 'explanations.jsonl'}."
        raise DataError(msg)
    known = {f.name for f in fields(Judged)}
    required = {f.name for f in fields(Judged) if f.default is MISSING}
    found = {}
    for entry in read_whole_lines(log_path):
        if entry.pop("key", None) != key or not required <= set(entry) <= known:
            msg = (
                f"{log_path} was written for other data, another protocol, model or other settings. "
                "Expected the same run; choose another file or delete it."
            )
            raise DataError(msg)
        found[entry["user_id"]] = Judged(**entry)
    return found


class _Judge:
    """Judges the explanation of one user's first recommendation.

    Attributes:
        other: the recommender under the other template.
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
        from genrec.explain.sentences import load_explain_template

        self._ours, self.other, self._style, self._seed = ours, other, style, seed
        settings = ours.settings
        self._template = load_explain_template(style, settings.language, settings.prompts)
        self._like = Likeness(ours.catalog, encoder, log)

    @property
    def key(self) -> str:
        """What a judgement depends on, beside the data."""
        both = [
            f"{r.exclude_seen} {RecommenderSystem(r, '').key}" for r in (self._ours, self.other)
        ]
        return " ".join([*both, self._template.hash, self._like.encoder, str(self._seed)])

    def judged(self, case: Case) -> Judged:
        """The judgement of a case."""
        catalog, history = self._ours.catalog, case.history
        shown = [r.prompt(history).prompt.events for r in (self._ours, self.other)]
        if shown[0] != shown[1]:  # one template is longer and shows fewer events: then so do both
            history = history.latest(min(shown))
        events = history.latest(min(shown)).interactions
        if not events:
            msg = (
                f"The prompt of user {case.user_id!r} has no room for an event. Expected a higher "
                "max_prompt_tokens."
            )
            raise RequestError(msg)
        (first,) = self._ours.recommend(history, 1, explain=True, style=self._style)
        why = first.explanation
        assert why is not None
        row = catalog.row(first.item_id)
        facts = told_from(why, self._template, catalog, events, row)
        named = named_by(why, facts, catalog, events)
        evidence = [e.nats for e in why.evidence]
        likeness = self._like.of(first.title, [_title(catalog, e) for e in events])
        digest = hashlib.sha256(f"{self._seed} {case.user_id}".encode()).digest()
        chance = np.random.default_rng(list(digest)).permutation(len(events)).tolist()
        ways = orders(named, evidence, likeness, chance)
        cut = {(w, n): tuple(sorted(order[:n])) for w, order in ways.items() for n in SIZES}
        rest = {(w, n): tuple(sorted(order[n:])) for w, order in ways.items() for n in SIZES}
        singles = [(place,) for place in range(len(events))]
        changes = list(dict.fromkeys([*singles, *cut.values(), *rest.values()]))
        found = self.other.falls(history, first.item_id, changes)
        fall = dict(zip(changes, found, strict=True))
        return Judged(
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
    """An event's title; None for one of text only."""
    return None if event.item_id is None else catalog[catalog.row(event.item_id)].title


def told_from(
    why: Explanation,
    template: Template,
    catalog: Catalog,
    events: Sequence[Interaction],
    row: int,
) -> Facts:
    """What a sentence that was shipped may say: a plain one also what its template says, and texts.

    Args:
        why: the explanation.
        template: of its sentence.
        catalog: the items.
        events: that the prompt showed.
        row: the item's catalog row.
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


def named_by(
    why: Explanation, facts: Facts, catalog: Catalog, events: Sequence[Interaction]
) -> list[int]:
    """The places of the events whose titles or texts a sentence names.

    A generated sentence names the item, too, which is no event then even where it was had before.
    """
    said = {name.lower() for name in find_names(one_line(why.text), facts)}
    if why.source == "generated":
        said.discard(one_line(facts.item.title).lower())
    shown = (_title(catalog, e) or e.text or "" for e in events)
    return [n for n, text in enumerate(shown) if one_line(text).lower() in said]


def orders(
    named: Sequence[int],
    evidence: Sequence[float],
    likeness: Sequence[float],
    chance: Sequence[int],
) -> dict[str, list[int]]:
    """Events in the order in which each way leaves them out.

    >>> orders([0], [0.5, 2.0, 1.0], [0.1, 0.0, 0.9], [1, 2, 0])["named"]
    [0, 1, 2]

    Args:
        named: by the sentence.
        evidence: of each event.
        likeness: of each event's title to the item's.
        chance: the events in random order.
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
    """How much titles are like one another: cosines of an encoder's vectors, or of n-grams.

    Attributes:
        encoder: its name.
    """

    def __init__(
        self, catalog: Catalog, encoder: str, log: Callable[[str], None] = lambda message: None
    ) -> None:
        """Loads the encoder, unless it is ``ngrams``.

        Raises:
            ModelError: it cannot be had.
        """
        self.encoder, self._catalog, self._log = encoder, catalog, log
        self._embedder = None if encoder == "ngrams" else load_embedder(encoder, log=log)
        self._known: dict[str, FloatArray] = {}

    def of(self, title: str, others: Sequence[str | None]) -> list[float]:
        """Of a title to others; less than all for None. By n-grams where one cannot be read."""
        texts = [None if t is None else normalized(t) or t for t in (title, *others)]
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
            found = (vectors @ one.T).toarray()[:, 0].tolist()
            cosine = dict(zip(rows, map(float, found), strict=True))
        return [-2.0 if t is None else cosine[t] for t in texts[1:]]

    @cached_property
    def _ngrams(self) -> Any:
        return title_vectors(self._catalog, "ngrams", self._log)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {normalized(t) or t: row for row, t in enumerate(self._catalog.titles)}
