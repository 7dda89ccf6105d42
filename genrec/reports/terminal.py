"""Print recommendations and explanations in the terminal, or as plain lines to a file or pipe.

This module works with finished results, not with models.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from genrec.config import EXPLAIN, FEATURE
from genrec.matching.history_parser import Understood
from genrec.pipeline.types import Recommendation, RecommendationList, describe_left_out
from genrec.prompts.encoder import EncodedPrompt
from genrec.reports.console import note, out, print_line, print_table
from genrec.reports.queries import describe_query
from genrec.text import one_line

if TYPE_CHECKING:
    from genrec.explain.counterfactuals import ItemExplanation, WhatIf
    from genrec.explain.types import Evidence, Explanation

_BAR = 24  # the length of the longest bar in characters
_BARS = 6  # the maximum number of events shown for each item in a list
BOOSTED = "The order takes the boost of each item into account. The probabilities do not."
_EXCLUDED = {  # the reason for each value of ``ItemExplanation.excluded_by``
    "filters": "the filters exclude it",
    "returned": "the user has returned it",
    "last_basket": "it is in the user's latest basket",
    "seen": "the user has already interacted with it",
    "same_title": "it has the same title as an item that is left out",
    "unseen": "the user has not had it before",
}


def print_likes(answer: Mapping[str, Any], understood: Sequence[Understood]) -> None:
    """Print items with the probability that the user wants them, highest first."""
    print_understood(understood)
    rows = [[f"{i['probability']:.4f}", i["item_id"], i["title"]] for i in answer["items"]]
    print_table(["probability", "item_id", "title"], rows, right=(0,))
    note(
        f"A probability is the chance that {answer['model']} answers yes rather than no to a question "
        f"about {answer['behavior']!r}."
    )
    for remark in answer["notes"]:
        note(remark)


def print_recommendations(answer: RecommendationList) -> None:
    """Print a ranked list with its probabilities, followed by remarks on its computation.

    If there is a prior, two additional columns show the probabilities under the model alone and
    under the prior alone.
    """
    print_understood(answer.understood)
    names, rows, right = list_columns(answer)
    print_table(names, rows, right=right)
    print_evidence(answer)
    note(f"{describe_request(answer)} Seen items are {answer.seen}.")
    if answer.left_out:
        note(describe_rules(answer))
    if "prior" in answer.details:
        note(describe_prior(answer))
    if "query" in answer.details:
        for line in describe_query(answer.details["query"]):
            note(line)
    if any(r.boost is not None for r in answer):
        note(BOOSTED)
    if "certificate" in answer.details:
        note(describe_certainty(answer))
    for remark in answer.notes:
        note(remark)


def list_columns(
    answer: RecommendationList, beside: Sequence[RecommendationList] = ()
) -> tuple[list[str], list[list[str]], tuple[int, ...]]:
    """Return the column names and the rows of a list, and the indices of its numeric columns.

    Args:
        answer: the list.
        beside: other lists in the same table, which add the columns that they need.
    """
    every = [r for one in (answer, *beside) for r in one]
    if answer.decoder == "match":
        rows = [
            [str(r.rank), f"{r.score:.4f}", r.item_id, r.title, " / ".join(r.texts), _matched(r)]
            for r in answer
        ]
        names = ["rank", "score", "item_id", "title", "the model wrote", "match"]
        right: tuple[int, ...] = (0, 1)
    elif "prior" in answer.details:
        rows = [
            [str(r.rank), by, _model(r), _prior(r), r.item_id, r.title]
            for r, by in zip(answer, ranked_by(answer), strict=True)
        ]
        names = ["rank", ranking(answer), "model", "prior", "item_id", "title"]
        right = (0, 1, 2, 3)
    else:
        rows = [
            [str(r.rank), f"{r.probability:.4f}", f"{r.logprob:.3f}", r.item_id, r.title]
            for r in answer
        ]
        names = ["rank", "probability", "logprob", "item_id", "title"]
        right = (0, 1, 2)
    if any(r.boost is not None for r in every):
        place = names.index("item_id")
        names.insert(place, "boost")
        right = (*right, place)
        for row, r in zip(rows, answer, strict=True):
            row.insert(place, "-" if r.boost is None else f"{r.boost:.3g}")
    if any(r.pinned for r in every):
        names.insert(1, "pinned")
        right = tuple(i + (i > 0) for i in right)
        for row, r in zip(rows, answer, strict=True):
            row.insert(1, "pinned" if r.pinned else "-")
    if any(r.explanation for r in every):
        names.append("why")
        for row, r in zip(rows, answer, strict=True):
            row.append(_why(r))
    return names, rows, right


def ranking(answer: RecommendationList) -> str:
    """Return the name of the number by which a list is sorted."""
    scored = answer.details.get("prior", {}).get("fusion") == "score"
    return "score" if scored else "probability"


def ranked_by(answer: RecommendationList) -> list[str]:
    """Return the number by which each item of a list is ranked, as text."""
    if ranking(answer) == "score":
        return [f"{r.score:.3f}" for r in answer]
    return [f"{r.probability:.4f}" for r in answer]


def _count(many: int, noun: str) -> str:
    """Format a number with a singular or plural noun, such as ``1 event`` or ``2 events``."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def describe_request(answer: RecommendationList) -> str:
    """Describe the model and the request in a single line."""
    if "model" not in answer.details.get("parts", ["model"]):
        return (
            f"Predicted {answer.behavior!r} from the whole history, without running {answer.model}."
        )
    threads = answer.details.get("threads")
    device = answer.details.get("device", "?")
    where = device if threads is None else f"{device} ({_count(threads, 'thread')})"
    return (
        f"{answer.model} on {where} predicted {answer.behavior!r} from "
        f"{_count(answer.events, 'event')}, with a prompt of {_count(answer.prompt_tokens, 'token')} "
        f"and decoder={answer.decoder!r}."
    )


def describe_rules(answer: RecommendationList) -> str:
    """State how many of the user's own items were left out, and which options include them."""
    left_out = answer.left_out
    described = describe_left_out(left_out)
    if not described:
        return "The rules on the user's own items leave out no item."
    rules = ("returned", "last_basket", "same_title")
    flags = [f"--allow-{r.replace('_', '-')}" for r in rules if left_out.get(r)]
    advice = f" To include such items, use {' and '.join(flags)}." if flags else ""
    return f"The list leaves out {described}.{advice}"


def print_evidence(answer: RecommendationList) -> None:
    """Print the strongest evidence for each item, as bars in a terminal and as a table otherwise."""
    told = [(r, r.explanation) for r in answer if r.explanation and r.explanation.evidence]
    if not told:
        return
    print_line("")
    if not out().is_terminal:
        names = ["rank", "event", "nats", "nats_model", "nats_prior", "behavior", "title"]
        rows = [
            [str(r.rank), str(n), *_parts(e), e.behavior, e.title]
            for r, why in told
            for n, e in _strongest(why, _BARS)
        ]
        print_table(names, rows)
        return
    for r, why in told:
        print_line(f"{r.rank}. {one_line(r.title)}", "bold")
        for line in evidence_lines(why, _BARS):
            print_line(f"   {line}")


def _strongest(why: Explanation, most: int | None) -> list[tuple[int, Evidence]]:
    """Find the events with the strongest evidence.

    Args:
        why: the explanation.
        most: the maximum number of events; None for all.

    Returns:
        The evidence with the position of each event, starting at 1, in the order of the history.
    """
    order = sorted(range(len(why.evidence)), key=lambda i: -abs(why.evidence[i].nats))
    return [(i + 1, why.evidence[i]) for i in sorted(order[:most])]


def _parts(e: Evidence) -> list[str]:
    return [f"{nats:.4f}" for nats in (e.nats, e.nats_model, e.nats_prior)]


def evidence_lines(why: Explanation, most: int | None = None) -> list[str]:
    """Return a line of text with a bar for each event, in the order of the history.

    Args:
        why: the explanation.
        most: the number of strongest events to show; None for all events.
    """
    shown = _strongest(why, most)
    peak = max((abs(e.nats) for e in why.evidence), default=0.0) or 1.0
    prior = any(e.nats_prior for e in why.evidence)
    lines = []
    for _, e in shown:
        bar = ("█" if e.nats > 0 else "░") * round(_BAR * abs(e.nats) / peak)
        parts = f" (model {e.nats_model:+.2f}, prior {e.nats_prior:+.2f})" if prior else ""
        shared = "".join(f"; same {n.replace('_', ' ')}: {v}" for n, v in e.shared.items())
        lines.append(
            f"{e.nats:+7.2f} {bar:{_BAR}} {one_line(e.behavior)}: {one_line(e.title)}{parts}{one_line(shared)}"
        )
    if weaker := len(why.evidence) - len(shown):
        lines.append(f"{'':{_BAR + 8}} and {_count(weaker, 'weaker event')}")
    if why.demonstrations is not None:
        lines.append(f"{why.demonstrations:+7.2f} {'':{_BAR}} all demonstrations together")
    if why.older is not None:
        older = _count(why.older.events, "older event")
        lines.append(f"{why.older.nats:+7.2f} {'':{_BAR}} {older} together, only through the prior")
    if why.context is not None:
        lines.append(f"{why.context:+7.2f} {'':{_BAR}} the context of the request")
    return lines


def print_item(item: ItemExplanation) -> None:
    """Print the interpretation of a typed history, the rank of an item, and its explanation."""
    print_understood(item.understood)
    why = item.explanation
    plain = " (plain)" if why.source == "template" else ""
    print_line(f"{one_line(item.title)} ({one_line(item.item_id)}): {standing(item)}", "bold")
    print_line(f"{why.text}{plain}")
    print_line("")
    for line in [*evidence_lines(why), *changes(item)]:
        print_line(line)
    if why.evidence:
        note(
            "Each bar shows how much the item's score falls (█) or rises (░), in nats, without the event. "
            "The bars show what the model relies on, not why a person acted in a certain way."
        )
    for remark in item.notes:
        note(remark)


def standing(item: ItemExplanation) -> str:
    """Describe the probability and the rank of an item, and say whether it is recommended."""
    rank = f"lower than {item.lower_than:,}" if item.rank is None else f"{item.rank:,}"
    listed = "among" if item.recommended else "not among"
    reason = _EXCLUDED.get(item.excluded_by or "")
    why = f"; {reason}, so it may not be recommended" if reason else ""
    return (
        f"probability {item.probability:.3g}, rank {rank} of {item.among:,}; "
        f"{listed} the {item.k} recommended items{why}"
    )


def changes(item: ItemExplanation) -> list[str]:
    """Return a line of text for each reason against an item and for each change that favors it."""
    events = item.explanation.evidence
    lines = [f"Against it: {name_event(e, events)} ({e.nats:+.2f} nats)" for e in item.against]
    for c in item.choices:
        where = f"After {c.written!r}" if c.written else "At the beginning"
        lines.append(
            f"{where}, the model prefers titles such as {one_line(c.such_as)} ({c.rather_share:.3f}) "
            f"to {c.wanted!r} ({c.share:.3f})"
        )
    if item.removal is not None:
        lines.append(f"Without {_describe_change(item.removal, item.k, events)}")
    if item.addition is not None:
        change = _describe_change(item.addition, item.k)
        lines.append(f"With one more event, {change} ({_count(item.tried, 'candidate')} tried)")
    elif item.tried:
        lines.append(
            f"No additional event would raise its score ({_count(item.tried, 'candidate')} tried)"
        )
    return lines


def name_event(event: Evidence | WhatIf, events: Sequence[Evidence]) -> str:
    """Name an event by its behavior and title, adding its number if another has the same title.

    Args:
        event: the event.
        events: the evidence from all events of the prompt.
    """
    name = one_line(f"{event.behavior} {event.title}")
    same = sum((e.behavior, e.title) == (event.behavior, event.title) for e in events)
    if event.event is None or same < 2:
        return name
    return f"{name} (event {event.event + 1} of {len(events)})"


def _describe_change(change: WhatIf, k: int, events: Sequence[Evidence] = ()) -> str:
    rank = f"rank {change.rank:,}" if change.rank else f"still not among the first {k}"
    return f"{name_event(change, events)}: {change.nats:+.2f} nats, {rank}"


def describe_prior(answer: RecommendationList) -> str:
    """Describe in one line how the model and the prior are combined, or that only one ranks."""
    prior = answer.details["prior"]
    counted = f", counted from {', '.join(prior['counted'])}" if prior["counted"] else ""
    ranker = f", with its best items in the order of {prior['ranker']}" if "ranker" in prior else ""
    if prior["role"] == EXPLAIN:
        return (
            f"The {prior['prior']} prior{counted.replace(', ', ' (', 1)}{')' * bool(counted)}{ranker} "
            "alone ranks the items; the model is used for explanations only (--model-role)."
        )
    if prior["role"] == FEATURE:
        return (
            f"The {prior['prior']} prior{counted.replace(', ', ' (', 1)}{')' * bool(counted)}{ranker} chooses "
            f"candidates, which are ranked by its weights (exponent {prior['power']:.3g}) and the model's "
            f"probabilities (exponent {prior['model']:.3g})."
        )
    how = "at each step of a title" if prior["fusion"] == "node" else "in the final score"
    return (
        f"The model (node temperature {prior['temperature']:.3g}) and the {prior['prior']} prior (weight "
        f"{prior['weight']:.3g}{counted}{ranker}) are combined {how}."
    )


def describe_certainty(answer: RecommendationList) -> str:
    """Describe in one line which ranks of a list are guaranteed to be exact."""
    certificate = answer.details["certificate"]
    pinned = sum(r.pinned for r in answer)
    if pinned and pinned == len(answer):
        return "All items are pinned."
    if "chosen_from" in answer.details:
        exact = "exactly" if certificate["exact"] else "not certainly"
        return (
            f"The {'other ' * bool(pinned)}items were chosen from {answer.details['chosen_from']:,} items, which are {exact} "
            "the best ones."
        )
    if certificate["exact"] and not len(answer):
        return "It is certain that no item belongs in this list."
    if certificate["exact"]:
        below = " below the pinned items" * bool(pinned)
        ties = ", up to ties" * certificate["ties"]
        return f"Exact top {len(answer) - pinned}{below}{ties}."
    missed = certificate["missed_mass_bound"]
    certain = certificate["certain_ranks"]
    sure = "No rank is certain"
    if certain:
        sure = (
            "Only the first rank is certain"
            if certain == 1
            else f"The first {certain} ranks are certain"
        )
    return f"{sure}; all unexplored items together have a probability of at most {missed:.3f}."


def _model(recommendation: Recommendation) -> str:
    """Format an item's probability under the model alone."""
    return (
        "-"
        if recommendation.logprob_model is None
        else f"{math.exp(recommendation.logprob_model):.4f}"
    )


def _prior(recommendation: Recommendation) -> str:
    return (
        "-"
        if recommendation.logprob_prior is None
        else f"{math.exp(recommendation.logprob_prior):.4f}"
    )


def _matched(recommendation: Recommendation) -> str:
    return f"{recommendation.match}, {recommendation.similarity:.2f}"


def _why(recommendation: Recommendation) -> str:
    if recommendation.explanation is None:
        return ""
    plain = " (plain)" if recommendation.explanation.source == "template" else ""
    return f"{recommendation.explanation.text}{plain}"


def print_understood(understood: Sequence[Understood]) -> None:
    """Print the interpretation of each part of a typed history."""
    if not understood:
        return
    rows = [
        [u.text, u.behavior, u.item_id or "-", u.title or _untitled(u), _how(u)] for u in understood
    ]
    if out().is_terminal:
        print_table(["typed", "behavior", "item_id", "title", "match"], rows)
        print_line("")
    else:
        for row in rows:
            note(" | ".join(one_line(c) for c in row))


def _untitled(piece: Understood) -> str:
    if piece.match == "text":
        return f'"{piece.note}"'
    similar = f"; similar: {piece.suggestions[0]}" if piece.suggestions else ""
    return f"not understood, ignored{similar}"


def _how(piece: Understood) -> str:
    near = piece.match in {"fuzzy", "embedding", "ngrams"}
    how = f"{piece.match}, {piece.similarity:.2f}" if near else piece.match
    if piece.value is not None:
        how += f"; value {piece.value:g}"
    if piece.note is not None and piece.item_id is not None:
        how += f'; wrote "{piece.note}"'
    if not piece.others:
        return how
    return f"{how}; the number of other items with this title is {len(piece.others)}"


def print_prompt(encoded: EncodedPrompt, about: str) -> None:
    """Print a prompt exactly as the model reads it, followed by the number of tokens and events.

    Args:
        encoded: the prompt.
        about: a description of the template and the model, which is printed after the numbers.
    """
    console = out()
    prompt = encoded.prompt
    if console.is_terminal:
        text = Text(encoded.frame[0], style="dim")
        for s in prompt.segments:
            if s.row is None:
                text.append(s.text, style="default")
            else:
                text.append(f"{prompt.lead}{s.text}{prompt.terminator}", style="cyan")
        text.append(encoded.frame[1], style="dim")
        console.print(text)
    else:
        sys.stdout.write(encoded.text + "\n")
    dropped = f" ({prompt.dropped:,} older ones left out)" if prompt.dropped else ""
    size = f"{_count(len(encoded.ids), 'token')}, {_count(prompt.events, 'event')}{dropped}"
    note(f"{size}; {about}")
