"""Write a profile as a paragraph, and check every sentence of it against the history.

The writer fills the patterns of ``prompts/*/profile.json``. The checker knows nothing of how a
profile is made: it counts the events of each named keyword itself, takes the words of the titles
from the catalog, and passes every part of a sentence to ``genrec.explain.claims``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from genrec.data.behaviors import Verb
from genrec.data.catalog import Catalog, Item
from genrec.explain.claims import Facts, find_problems
from genrec.prompts.profile import ProfileWords
from genrec.taste.keywords import holds
from genrec.taste.profile import Profile

MOST = 5  # interests, and other keywords of one kind, in the paragraph
_LEAST_PERCENT = 0.01  # less likely behaviors and topics are left out
_LEAST_LIFT = 1.2  # topics that are hardly likelier than for a new user are left out
_LEAST_TIMES = 1.1  # a smaller effect of the events is left out


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a sentence.

    Attributes:
        text: the text, as it stands in the sentence.
        kind: the pattern that it comes from, such as ``interest``.
        keyword: the keyword that it is about; empty for none.
        behavior: the behavior that it names; empty for none.
    """

    text: str
    kind: str
    keyword: str = ""
    behavior: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a profile.

    Attributes:
        text: the sentence.
        kind: the pattern of the sentence, such as ``interests``.
        parts: its parts; a sentence without a list has one, which is the sentence itself.
    """

    text: str
    kind: str
    parts: tuple[Part, ...] = field(default=())


def describe_times(nats: float) -> str:
    """Write how many times likelier something is, with two or more digits.

    >>> describe_times(1.0), describe_times(5.0)
    ('2.7', '148')
    """
    times = math.exp(min(nats, 50.0))
    return f"{times:.1f}" if times < 10 else f"{times:.0f}"


class ProfileWriter:
    """Writes profiles as sentences in one language."""

    def __init__(self, words: ProfileWords, verbs: Mapping[str, Verb]) -> None:
        """Store the patterns and the verbs of the language."""
        self._words, self._verbs = words, dict(verbs)

    def sentences(self, profile: Profile) -> list[Sentence]:
        """Write the sentences of a profile."""
        words, n = self._words, len(profile.history)
        if not n and not profile.edits:
            return [self._plain("empty")]
        found: list[Sentence] = []
        own = [i for i in profile.interests if i.source == "history"]
        if own:
            parts = [
                self._part("interest", keyword=i.keyword, events=len(i.events)) for i in own[:MOST]
            ]
            found.append(self._listed("interests", parts, n=n))
            if own[0].nats is not None and math.exp(own[0].nats) >= _LEAST_TIMES:
                times, events = describe_times(own[0].nats), len(own[0].events)
                values = {"keyword": own[0].keyword, "events": events, "times": times}
                found.append(self._plain("weight", **values))
        elif n:
            found.append(self._plain("nothing", n=n))
        for kind in ("rises", "falls"):
            some = [s for s in profile.shifts if s.rises == (kind == "rises")]
            parts = [
                self._part(
                    "shift", keyword=s.keyword, recent=s.recent, of_recent=s.of_recent,
                    earlier=s.earlier, of_earlier=s.of_earlier,
                )
                for s in some
            ]  # fmt: skip
            found += [self._listed(kind, parts)] if parts else []
        said = profile.opinions
        if said.read:
            counts = {"positive": len(said.positive), "negative": len(said.negative)}
            found.append(self._plain("opinions", n=said.read, **counts))
        parts = [
            Part(
                words.fill("behavior", verb=self._verb(b), percent=round(100 * p)),
                "behavior",
                "",
                b,
            )
            for b, p in profile.intent.behaviors
            if p >= _LEAST_PERCENT
        ][:MOST]
        found += (
            [self._listed("next", parts)] if parts and len(profile.intent.behaviors) > 1 else []
        )
        parts = [
            self._part("topic", keyword=t.name, percent=round(100 * t.probability))
            for t in profile.intent.topics
            if t.probability >= _LEAST_PERCENT and t.probability >= _LEAST_LIFT * t.usual
        ][:MOST]
        found += [self._listed("topics", parts)] if parts else []
        for kind in ("added", "banned"):
            parts = [self._part("keyword", keyword=k) for k in getattr(profile.edits, kind)[:MOST]]
            found += [self._listed(kind, parts)] if parts else []
        return found

    def join(self, sentences: Sequence[Sentence]) -> str:
        """Join sentences to a paragraph."""
        between = "" if self._words["full_stop"] == "。" else " "
        return between.join(s.text for s in sentences)

    def _verb(self, behavior: str) -> str:
        verb = self._verbs.get(behavior)
        return behavior.replace("_", " ") if verb is None else verb.base

    def _part(self, kind: str, **values: object) -> Part:
        return Part(self._words.fill(kind, **values), kind, str(values.get("keyword", "")))

    def _plain(self, kind: str, **values: object) -> Sentence:
        text = self._words.fill(kind, **values)
        text += "" if text.endswith(self._words["full_stop"]) else self._words["full_stop"]
        return Sentence(text, kind, (Part(text, kind, str(values.get("keyword", ""))),))

    def _listed(self, kind: str, parts: Sequence[Part], **values: object) -> Sentence:
        joined = parts[0].text
        for part in parts[1:-1]:
            joined += self._words["join"] + part.text
        joined += self._words["last"] + parts[-1].text if len(parts) > 1 else ""
        text = self._words.fill(kind, parts=joined, **values) + self._words["full_stop"]
        lead = Part(self._words.fill(kind, parts="", **values), kind)
        return Sentence(text, kind, (lead, *parts))


def find_unsupported(
    sentences: Sequence[Sentence],
    profile: Profile,
    catalog: Catalog,
    words: ProfileWords,
    verbs: Mapping[str, Verb],
) -> tuple[str, ...]:
    """Return the claims of a profile's sentences that the history or the profile does not support.

    Counts of events are counted again from the history. Probabilities and nats must be those of the
    profile, since they come from the model and the prior.

    Args:
        sentences: the sentences.
        profile: the profile.
        catalog: the items.
        words: the patterns of the language. Only their words may be used beside those of keywords.
        verbs: the verbs of the language.

    Returns:
        The problems; empty if every claim is supported.
    """
    check = _Check(profile, catalog, words, verbs)
    problems = []
    for sentence in sentences:
        for part in sentence.parts:
            if part.text not in sentence.text and part.text.rstrip() not in sentence.text:
                problems.append(f"{part.text!r} is not part of {sentence.text!r}")
            problems += [f"{part.text!r} {p}" for p in check.problems(part, sentence.kind)]
        rest = sentence.text
        for part in sorted(sentence.parts, key=lambda p: -len(p.text)):
            rest = rest.replace(part.text, " ", 1)
        joining = words["join"] + words["last"] + words["full_stop"]
        left = [w for w in rest.split() if w.strip(joining + " ") and w not in joining.split()]
        problems += [f"{sentence.text!r} has the unchecked text {w!r}" for w in left]
    return tuple(problems)


class _Check:
    """Checks the parts of a profile's sentences."""

    def __init__(
        self, profile: Profile, catalog: Catalog, words: ProfileWords, verbs: Mapping[str, Verb]
    ) -> None:
        self._profile, self._words, self._verbs = profile, words, verbs
        self._items = [
            catalog[catalog.row(e.item_id)]
            for e in profile.history.interactions
            if e.item_id is not None and e.item_id in catalog
        ]
        patterns = (re.sub(r"\{\w+\}", " ", p) for k, p in words.patterns.items() if k != "stop")
        self._plain = tuple(patterns)

    def problems(self, part: Part, kind: str) -> list[str]:
        """Return the problems of one part of a sentence of a given kind."""
        numbers = self._numbers(part, kind)
        if isinstance(numbers, str):
            return [numbers]
        allowed = [*self._plain, self._verb(part.behavior)] if part.behavior else [*self._plain]
        if part.keyword:
            allowed.append(part.keyword)
        item = Item("profile", "", {"numbers": " ".join(f"{n:g}" for n in numbers)})
        facts = Facts(item, (), {}, tuple(allowed))
        # Digits of a keyword itself ("3d print") are part of the keyword, not figures.
        text = part.text.replace(part.keyword, " ") if part.keyword else part.text
        problems = [p for p in find_problems(text, facts) if not p.startswith("is not written in")]
        said = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)]
        if sorted(said) != sorted(float(n) for n in numbers):
            problems.append(f"has the numbers {said}, but {numbers} were counted")
        return problems

    def _verb(self, behavior: str) -> str:
        verb = self._verbs.get(behavior)
        return behavior.replace("_", " ") if verb is None else verb.base

    def _numbers(self, part: Part, kind: str) -> list[float] | str:
        """Return the numbers that a part should have, or the problem with its keyword or behavior."""
        profile, n = self._profile, float(len(self._profile.history))
        held = [holds(item, part.keyword) for item in self._items] if part.keyword else []
        if part.kind in {"interest", "shift", "weight"} and not any(held):
            return f"names {part.keyword!r}, which no item of the history holds"
        middle = len(self._items) // 2
        match part.kind:
            case "interest":
                return [float(sum(held))]
            case "shift":
                recent, earlier = sum(held[middle:]), sum(held[:middle])
                of_recent = len(self._items) - middle
                rises = recent * middle > earlier * of_recent
                if rises != (kind == "rises"):
                    return f"says the wrong direction of {part.keyword!r}"
                return [float(x) for x in (recent, of_recent, earlier, middle)]
            case "weight":
                nats = [i.nats for i in profile.interests if i.keyword == part.keyword]
                return [
                    float(sum(held)),
                    *(float(describe_times(x)) for x in nats if x is not None),
                ]
            case "interests" | "nothing":
                return [n]
            case "opinions":
                said = profile.opinions
                return [float(x) for x in (said.read, len(said.positive), len(said.negative))]
            case "behavior":
                chances = dict(profile.intent.behaviors)
                if part.behavior not in chances:
                    return f"names the behavior {part.behavior!r}, which is unknown"
                return [float(round(100 * chances[part.behavior]))]
            case "topic":
                known_topics = [t for t in profile.intent.topics if t.name == part.keyword]
                return [float(round(100 * t.probability)) for t in known_topics[:1]]
            case "keyword":
                edits = (*profile.edits.added, *profile.edits.banned)
                return [] if part.keyword in edits else f"names {part.keyword!r}, which is no edit"
            case _:
                return []
