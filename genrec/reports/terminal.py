"""How answers look: rich tables in a terminal, plain lines in a pipe. Knows results, no models."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from genrec.matching.history_parser import Understood
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.prompts.encoder import EncodedPrompt
from genrec.reports.console import note, out, print_line, print_table
from genrec.text import one_line

if TYPE_CHECKING:
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.explain.types import Evidence, Explanation

Watch = Callable[[Mapping[str, Any]], None]
_BAR = 24  # characters of the longest bar
_BARS = 6  # events of an item in a list


def print_likes(answer: Mapping[str, Any], understood: Sequence[Understood]) -> None:
    """Items with the probability of yes, the surest first."""
    print_understood(understood)
    rows = [[f"{i['probability']:.4f}", i["item_id"], i["title"]] for i in answer["items"]]
    print_table(["probability", "item_id", "title"], rows, right=(0,))
    note(f"{answer['model']}; asked for {answer['behavior']!r}, yes against no")


def print_recommendations(answer: RecommendationList) -> None:
    """A ranked list with probabilities, and beneath it how it came about.

    Beside a prior: the probabilities of model and prior, each alone.
    """
    print_understood(answer.understood)
    if answer.decoder == "match":
        rows = [
            [str(r.rank), f"{r.score:.4f}", r.item_id, r.title, " / ".join(r.texts), _matched(r)]
            for r in answer
        ]
        names = ["rank", "score", "item_id", "title", "the model wrote", "match"]
        right: tuple[int, ...] = (0, 1)
    elif "prior" in answer.details:
        scored = answer.details["prior"]["fusion"] == "score"
        ranked_by = [f"{r.score:.3f}" if scored else f"{r.probability:.4f}" for r in answer]
        rows = [
            [str(r.rank), by, _model(r), _prior(r), r.item_id, r.title]
            for r, by in zip(answer, ranked_by, strict=True)
        ]
        names = ["rank", "score" if scored else "probability", "model", "prior", "item_id", "title"]
        right = (0, 1, 2, 3)
    else:
        rows = [
            [str(r.rank), f"{r.probability:.4f}", f"{r.logprob:.3f}", r.item_id, r.title]
            for r in answer
        ]
        names = ["rank", "probability", "logprob", "item_id", "title"]
        right = (0, 1, 2)
    if any(r.explanation for r in answer):
        names.append("why")
        for row, r in zip(rows, answer, strict=True):
            row.append(_why(r))
    print_table(names, rows, right=right)
    _print_evidence(answer)
    threads = f", {answer.details['threads']} thread(s)" if "threads" in answer.details else ""
    note(
        f"{answer.model} on {answer.details.get('device', '?')}{threads}; decoder {answer.decoder};"
        f" asked for {answer.behavior!r}; prompt of {answer.prompt_tokens} tokens, "
        f"{answer.events} events; seen items {answer.seen}"
    )
    if "prior" in answer.details:
        note(_spoken(answer))
    if "certificate" in answer.details:
        note(_certainty(answer))
    for remark in answer.notes:
        note(remark)


def _print_evidence(answer: RecommendationList) -> None:
    """The strongest evidence of each item: bars in a terminal, in a pipe a second table."""
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
    """The strongest events with their places, from 1, in the order of the history."""
    order = sorted(range(len(why.evidence)), key=lambda i: -abs(why.evidence[i].nats))
    return [(i + 1, why.evidence[i]) for i in sorted(order[:most])]


def _parts(e: Evidence) -> list[str]:
    return [f"{nats:.4f}" for nats in (e.nats, e.nats_model, e.nats_prior)]


def evidence_lines(why: Explanation, most: int | None = None) -> list[str]:
    """A bar for each event, in the order of the history; with most only for the strongest."""
    shown = _strongest(why, most)
    peak = max((abs(e.nats) for e in why.evidence), default=0.0) or 1.0
    prior = any(e.nats_prior for e in why.evidence)
    lines = []
    for _, e in shown:
        bar = ("█" if e.nats > 0 else "░") * round(_BAR * abs(e.nats) / peak)
        parts = f" (model {e.nats_model:+.2f}, prior {e.nats_prior:+.2f})" if prior else ""
        lines.append(
            f"{e.nats:+7.2f} {bar:{_BAR}} {one_line(e.behavior)}: {one_line(e.title)}{parts}"
        )
    if weaker := len(why.evidence) - len(shown):
        lines.append(f"{'':{_BAR + 8}} and {weaker} weaker")
    if why.demonstrations is not None:
        lines.append(f"{why.demonstrations:+7.2f} {'':{_BAR}} the demonstrations, together")
    if why.older is not None:
        many = f"{why.older.events:,} older event{'s' if why.older.events > 1 else ''}"
        lines.append(f"{why.older.nats:+7.2f} {'':{_BAR}} {many}, together, by the prior")
    return lines


def print_item(found: ItemExplanation) -> None:
    """Where an item stands and why."""
    why = found.explanation
    plain = " (plain)" if why.source == "template" else ""
    print_line(f"{one_line(found.title)} ({one_line(found.item_id)}): {standing(found)}", "bold")
    print_line(f"{why.text}{plain}")
    print_line("")
    for line in [*evidence_lines(why), *changes(found)]:
        print_line(line)
    if why.evidence:
        note(
            "A bar is how far the item's score falls (in nats; ░ rises) without that event: what the "
            "model rests on, not why anybody did anything."
        )


def standing(found: ItemExplanation) -> str:
    """Probability and rank in words."""
    rank = f"lower than {found.lower_than}" if found.rank is None else f"{found.rank}"
    listed = "among" if found.recommended else "not among"
    out_ = "" if found.allowed else "; it is an item of the history, which may not be returned"
    return (
        f"probability {found.probability:.3g}, rank {rank} of {found.among:,}; "
        f"{listed} the {found.k} recommended{out_}"
    )


def changes(found: ItemExplanation) -> list[str]:
    """What speaks against an item and what would raise it, a line each."""
    lines = [
        f"against it: {one_line(f'{e.behavior} {e.title}')} ({e.nats:+.2f} nats)"
        for e in found.against
    ]
    lines += [
        (f"after {c.written!r}" if c.written else "at the beginning")
        + f" the model rather writes titles such as {one_line(c.such_as)} ({c.rather_share:.3f}) than "
        f"{c.wanted!r} ({c.share:.3f})"
        for c in found.choices
    ]
    for what, change in (("without", found.removal), ("with one more event,", found.addition)):
        if change is not None:
            rank = f"rank {change.rank}" if change.rank else f"still not among the {found.k}"
            lines.append(
                f"{what} {one_line(f'{change.behavior} {change.title}')}: {change.nats:+.2f} nats, "
                f"{rank}"
            )
    if found.addition is None and found.tried:
        lines.append(f"none of {found.tried} items that were tried would raise it")
    elif found.addition is not None:
        lines[-1] += f" (best of {found.tried} items that were tried)"
    return lines


def _spoken(answer: RecommendationList) -> str:
    """Which parts a list comes from, in one line."""
    prior = answer.details["prior"]
    counted = f" (from {', '.join(prior['counted'])})" if prior["counted"] else ""
    how = "weighing each choice" if prior["fusion"] == "node" else "added to the score"
    return (
        f"from the model (node temperature {prior['temperature']:.3g}) and the prior "
        f"{prior['prior']}{counted}, {how} to the power {prior['weight']:.3g}"
    )


def _certainty(answer: RecommendationList) -> str:
    """How sure a list is, in one line."""
    found = answer.details["certificate"]
    cost = f"{found['nodes']:,} prefixes, {found['tokens']:,} tokens after the prompt"
    if "chosen_from" in answer.details:
        sure = "exactly" if found["exact"] else "not surely"
        return f"chosen from the {answer.details['chosen_from']:,} best, {sure} these; {cost}"
    if found["exact"]:
        return f"exact: no other item belongs to this list{' (up to ties)' * found['ties']}; {cost}"
    return (
        f"the first {found['certain_ranks']} are certain; what was not looked at has a probability "
        f"of {found['missed_mass_bound']:.3f} at most; {cost}"
    )


def _model(found: Recommendation) -> str:
    """The model's own probability."""
    return "-" if found.logprob_model is None else f"{math.exp(found.logprob_model):.4f}"


def _prior(found: Recommendation) -> str:
    return "-" if found.logprob_prior is None else f"{math.exp(found.logprob_prior):.4f}"


def _matched(found: Recommendation) -> str:
    return f"{found.match}, {found.similarity:.2f}"


def _why(found: Recommendation) -> str:
    if found.explanation is None:
        return ""
    plain = " (plain)" if found.explanation.source == "template" else ""
    return f"{found.explanation.text}{plain}"


def print_understood(understood: Sequence[Understood]) -> None:
    """What became of each piece of a typed history."""
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


def _untitled(found: Understood) -> str:
    return f'"{found.note}"' if found.match == "text" else "not understood, left out"


def _how(found: Understood) -> str:
    near = found.match in {"fuzzy", "embedding", "ngrams"}
    how = f"{found.match}, {found.similarity:.2f}" if near else found.match
    if found.value is not None:
        how += f"; value {found.value:g}"
    if found.note is not None and found.item_id is not None:
        how += f'; wrote "{found.note}"'
    if not found.others:
        return how
    return f"{how}; {len(found.others)} more items have this title"


def print_prompt(encoded: EncodedPrompt, limit: str) -> None:
    """A prompt exactly as the model reads it, and its size."""
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
    dropped = f" ({prompt.dropped} older left out)" if prompt.dropped else ""
    note(f"{len(encoded.ids)} tokens, {prompt.events} events{dropped}; {limit}")
