"""Write an HTML page that explains recommendations.

The page is a single file without scripts. All text from the data, such as titles, is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrec.errors import SettingsError
from genrec.files import check_output, write_text
from genrec.matching.history_parser import Understood
from genrec.pipeline.types import RecommendationList
from genrec.reports.html import escape_line, make_page
from genrec.reports.terminal import changes, standing
from genrec.text import printable

if TYPE_CHECKING:
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.explain.types import Explanation

Spans = Sequence[tuple[int, int]]
_FOR, _AGAINST = "0, 114, 178", "213, 94, 0"  # colors that color-blind people can tell apart
_NUMBER = re.compile(r"-?\d+\.?\d*")
_FULL = 0.65  # the opacity of the strongest event
_STYLE = """
body { max-width: 60em; }
details { border: 1px solid #8886; border-radius: 8px; margin: .6em 0; padding: .5em .9em; }
summary { cursor: pointer; font-weight: 600; }
summary small, .quiet { font-weight: 400; opacity: .75; }
.said { font-size: 1.15em; margin: .7em 0 .2em; }
.tag { font-size: .8em; display: inline-block; white-space: nowrap; border: 1px solid #8888; border-radius: 1em; padding: 0 .6em; opacity: .8; }
table { border-collapse: collapse; width: 100%; margin: .6em 0; }
th, td { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; }
th { white-space: nowrap; font-weight: 600; border-bottom: 1px solid #8888; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bar { width: 30%; min-width: 6em; }
td.bar div { height: .9em; margin-top: .3em; border-radius: 2px; min-width: 1px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #8884; border-radius: 6px;
  padding: .7em .9em; line-height: 1.6; }
mark { color: inherit; border-radius: 3px; padding: .1em 0; }
ul { margin: .3em 0; padding-left: 1.3em; }
"""
_HOW = (
    "The evidence of an event is the fall of the item's log score, in nats, when the event is left out "
    "of the history. Blue events support the item; orange events speak against it. Evidence shows what "
    "the model relies on, not why a person acted in a certain way."
)


def check(path: str | Path) -> None:
    """Check that a page can be written to a file, before any slow work is done.

    Raises:
        SettingsError: the name does not end with .html, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".html":
        msg = f"html={str(path)!r} is not valid. Expected a file name that ends with .html."
        raise SettingsError(msg)
    check_output(path)


def write(path: str | Path, page: str) -> None:
    """Write a page to a file, and create its folder if necessary.

    Raises:
        SettingsError: the file name is not valid; see ``check``.
    """
    check(path)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def of_list(answer: RecommendationList, prompt: str, spans: Spans) -> str:
    """Build the page for a list of recommendations that have explanations.

    Args:
        answer: the list.
        prompt: the prompt that the model read.
        spans: the character positions (start, end) of each event in the prompt.
    """
    who = "a typed history" if answer.user_id is None else f"user {answer.user_id}"
    parts = [_heading(f"Why these items, for {who}"), _line(_HOW), _line(_about(answer))]
    parts += _typed(answer.understood, answer.notes)
    for r in answer:
        number = "" if r.logprob is None else f"probability {r.probability:.4f}"
        summary = (
            f"{r.rank}. {escape_line(r.title)} <small>{escape_line(r.item_id)} {number}</small>"
        )
        body = "" if r.explanation is None else _explanation(r.explanation, prompt, spans)
        opened = " open" if r.rank == 1 else ""
        parts.append(f"<details{opened}><summary>{summary}</summary>{body}</details>")
    return make_page(f"Why these items, for {who}", "\n".join(parts), _STYLE)


def of_item(item: ItemExplanation, prompt: str, spans: Spans) -> str:
    """Build the page for the explanation of one item.

    Args:
        item: the explanation.
        prompt: the prompt that the model read.
        spans: the character positions (start, end) of each event in the prompt.
    """
    listed = [[str(n), item_id, title, f"{score:.3f}"] for n, item_id, title, score in item.instead]
    parts = [
        _heading(item.title),
        _line(f"{item.item_id}: {standing(item)}."),
        _line(_HOW),
        *_typed(item.understood, item.notes),
        _explanation(item.explanation, prompt, spans, changes(item)),
        _heading("Recommended items", 2),
        _table(["rank", "item_id", "title", "score"], listed),
    ]
    return make_page(item.title, "\n".join(parts), _STYLE)


def _typed(understood: Sequence[Understood], notes: Sequence[str]) -> list[str]:
    """Build the HTML of a table that shows the interpretation of a typed history, and of the notes."""
    rows = [
        [u.text, u.behavior, u.title or u.note or "not understood, ignored"] for u in understood
    ]
    table = [_table(["typed", "behavior", "understood as"], rows)] if rows else []
    return table + [_line(note) for note in notes]


def _about(answer: RecommendationList) -> str:
    return (
        f"Model: {answer.model}. Predicted behavior: {answer.behavior}. Prompt: {answer.events} events, "
        f"{answer.prompt_tokens} tokens. Seen items: {answer.seen}."
    )


def _explanation(why: Explanation, prompt: str, spans: Spans, more: Sequence[str] = ()) -> str:
    """Build the HTML of an explanation.

    It contains the sentence, a bar for each event, further facts and the prompt with its events
    highlighted.
    """
    tag = "written by the model, checked" if why.source == "generated" else "plain sentence"
    parts = [f'<p class="said">{escape_line(why.text)} <span class="tag">{tag}</span></p>']
    parts.append(_bars(why))
    lines = [*more, *(_without(w.title, w.rank) for w in why.without)]
    if why.demonstrations is not None:
        lines.append(f"All demonstrations together: {why.demonstrations:+.2f} nats.")
    if why.older is not None:
        lines.append(
            f"Older events ({why.older.events:,}), only through the prior: {why.older.nats:+.2f} nats."
        )
    parts.append(_list(lines))
    if why.rejected:
        rejected = [f"{r.text} ({r.why})" for r in why.rejected]
        parts.append('<p class="quiet">Sentences by the model that failed the check:</p>')
        parts.append(_list(rejected))
    parts.append('<p class="quiet">The prompt that the model reads:</p>')
    parts.append(_shaded(why, prompt, spans))
    return "\n".join(parts)


def _without(title: str, rank: int | None) -> str:
    place = "not in the list" if rank is None else f"at rank {rank}"
    return f"In a new search without {title}, the item is {place}."


def _bars(why: Explanation) -> str:
    if not why.evidence:
        return ""
    peak = max(abs(e.nats) for e in why.evidence) or 1.0
    prior = any(e.nats_prior for e in why.evidence)
    names = ["nats", *(["model", "prior"] if prior else [])]
    head = "".join(f'<th class="n">{n}</th>' for n in names) + "<th></th><th>event</th>"
    rows = []
    for e in why.evidence:
        values = [e.nats, *([e.nats_model, e.nats_prior] if prior else [])]
        cells = "".join(f'<td class="n">{v:+.2f}</td>' for v in values)
        width = 100 * abs(e.nats) / peak
        color = _FOR if e.nats > 0 else _AGAINST
        bar = f'<div style="width:{width:.1f}%;background:rgb({color})"></div>'
        event = f'<span class="quiet">{escape_line(e.behavior)}</span> {escape_line(e.title)}'
        rows.append(f'<tr>{cells}<td class="bar">{bar}</td><td>{event}</td></tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _shaded(why: Explanation, prompt: str, spans: Spans) -> str:
    """Build the HTML of the prompt, in which the color of each event shows its evidence.

    The hue shows the sign of the evidence, and the opacity shows its strength.
    """
    peak = max((abs(e.nats) for e in why.evidence), default=0.0) or 1.0
    text, done = "", 0
    for (start, stop), e in zip(spans, why.evidence, strict=False):
        if stop <= start:
            continue
        color = _FOR if e.nats > 0 else _AGAINST
        shade = f"rgba({color}, {_FULL * (abs(e.nats) / peak) ** 0.5:.3f})"
        text += _kept(prompt[done:start])
        inside = prompt[start:stop]
        ending = inside[len(inside.rstrip("\n")) :]
        text += f'<mark style="background:{shade}" title="{e.nats:+.3f} nats">'
        text += f"{_kept(inside.rstrip(chr(10)))}</mark>{ending}"
        done = stop
    return f"<pre>{text}{_kept(prompt[done:])}</pre>"


def _kept(text: str) -> str:
    """Escape a text for HTML, but keep its line breaks and the spaces at its beginning and end."""
    start, stop = len(text) - len(text.lstrip(" ")), len(text.rstrip(" "))
    return html.escape(text[:start] + printable(text[start:stop]) + text[max(stop, start) :])


def _heading(text: str, level: int = 1) -> str:
    return f"<h{level}>{escape_line(text)}</h{level}>"


def _line(text: str) -> str:
    return f"<p>{escape_line(text)}</p>"


def _list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape_line(t)}</li>' for t in texts)}</ul>" if texts else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape_line(c)}</th>" for c in header)
    body = "".join("<tr>" + "".join(map(_cell, r)) + "</tr>" for r in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    kind = ' class="n"' if _NUMBER.fullmatch(text) else ""
    return f"<td{kind}>{escape_line(text)}</td>"
