"""Write an HTML page that explains recommendations.

For each item, the page shows one sentence and the strongest events; the rest is collapsed. The page
is a single file without scripts. All text from the data, such as titles, is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrec.config import FUSE
from genrec.errors import SettingsError
from genrec.files import check_output, write_text
from genrec.matching.history_parser import Understood
from genrec.pipeline.types import RecommendationList, describe_left_out
from genrec.priors.fusion import name_with_prior
from genrec.reports.html import escape_line, fold, make_page
from genrec.reports.terminal import changes, standing
from genrec.text import printable

if TYPE_CHECKING:
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.explain.types import Explanation

_NUMBER = re.compile(r"-?\d+\.?\d*")
_STRONGEST = 3  # the number of events that are shown before the folds
_VISIBLE = 0.005  # nats; weaker evidence is shown as 0.00
_FULL = 55  # percent of its color that the strongest event has in the prompt
_STYLE = """
body { max-width: 46em; }
article { border-top: 1px solid #8886; padding: .2em 0 .8em; }
.said { font-size: 1.15em; margin: .4em 0; }
.tag { font-size: .75em; display: inline-block; white-space: nowrap; border: 1px solid #8888;
  border-radius: 1em; padding: 0 .6em; opacity: .85; }
h2 small { font-weight: 400; }
ol { list-style: none; margin: .5em 0; padding: 0; }
ol li { display: grid; grid-template-columns: 11em 4em 1fr; gap: 0 .7em; padding: .15em 0; }
.bar { display: grid; grid-template-columns: 1fr 1fr; align-self: start; height: 1em; margin-top: .25em;
  background: linear-gradient(#888, #888) 50% 0 / 1px 100% no-repeat; }
.bar i { height: 100%; min-width: 1px; border-radius: 2px; }
.supports .bar i { grid-column: 2; background: var(--for); }
.opposes .bar i { grid-column: 1; justify-self: end; border: 1px solid var(--against);
  background: repeating-linear-gradient(135deg, var(--against) 0 3px, transparent 3px 6px); }
.nats { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.event small { display: block; }
.key b { font-weight: 600; }
.key .supports { color: var(--for); }
.key .opposes { color: var(--against); }
@media (max-width: 40em) {
  ol li { grid-template-columns: 1fr 4em; }
  .event { grid-column: 1 / -1; margin-bottom: .4em; }
}
table { border-collapse: collapse; margin: .6em 0; }
th, td { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #8888; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.7; margin: .5em 0; }
mark { color: inherit; border-radius: 3px; padding: .1em 0; }
mark.supports { background: color-mix(in srgb, var(--for) var(--share), transparent);
  border-bottom: 2px solid var(--for); }
mark.opposes { background: color-mix(in srgb, var(--against) var(--share), transparent);
  border-bottom: 2px dashed var(--against); }
ul { margin: .3em 0; padding-left: 1.3em; }
"""
_RAILS = """
body { max-width: 90em; }
.rails { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30em, 100%), 1fr)); gap: 0 2.5em; }
.rails section { min-width: 0; }
"""
_KEY = (
    '<p class="key quiet"><b class="supports">\u25b6 Bars to the right</b>: the event supports the item. '
    '<b class="opposes">\u25c0 Striped bars to the left</b>: the event speaks against it.</p>'
)
_HOW = (
    "The evidence of an event is the drop in the item's log score, in nats, when the event is left out "
    "of the history. If the score rises, the number is negative and the event speaks against the item. "
    "In the prompt, events that support the item are underlined, and events that oppose it have a dashed "
    "underline; the stronger the color, the stronger the evidence. Evidence shows what the model relies "
    "on, not why a person acted in a certain way."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt that the model read.

    Attributes:
        text: the prompt.
        spans: the character positions (start, end) of each event in the prompt.
        times: the time of each event as text; empty if the times of the events are unknown.
    """

    text: str
    spans: Sequence[tuple[int, int]]
    times: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Effect:
    """The evidence from one event, or from several events together.

    Attributes:
        name: the event as HTML.
        about: details that distinguish the event from others, as HTML.
        nats: the evidence in nats.
    """

    name: str
    about: str
    nats: float


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


def of_list(answer: RecommendationList, prompt: Prompt) -> str:
    """Build the page for a list of recommendations that have explanations."""
    parts = [*map(_line, answer.notes), _KEY, *_articles(answer, prompt)]
    return _page(answer, parts, _line(f"Seen items: {answer.seen}."))


def of_rails(
    rails: Mapping[str, RecommendationList], titles: Mapping[str, str], prompt: Prompt
) -> str:
    """Build the page for several lists with explanations, which it shows side by side.

    Args:
        rails: the lists, keyed by the value of ``show``; see ``Recommender.recommend_rails``.
        titles: the title of each list.
        prompt: the prompt, which is the same for all lists.
    """
    sections = []
    for show, answer in rails.items():
        inside = [*map(_line, answer.notes), *_articles(answer, prompt)]
        if described := describe_left_out(answer.left_out):
            inside.append(_line(f"The list leaves out {described}."))
        body = "\n".join(inside)
        sections.append(f"<section>\n<h2>{escape_line(titles[show])}</h2>\n{body}\n</section>")
    beside = "\n".join(sections)
    parts = [_KEY, f'<div class="rails">\n{beside}\n</div>']
    first = next((a for a in rails.values() if len(a)), next(iter(rails.values())))
    return _page(first, parts, "", _RAILS)


def _page(answer: RecommendationList, parts: Sequence[str], more: str, style: str = "") -> str:
    """Build a page about recommendations from its parts.

    Args:
        answer: the list, or one of several.
        parts: the parts between the heading and the remarks at the end.
        more: a further remark on the list as HTML.
        style: further CSS rules.
    """
    who = "a typed history" if answer.user_id is None else f"user {answer.user_id}"
    heading = f"Why these items, for {who}"
    how = fold("How to read this page", _line(_HOW) + _line(_about(answer)) + more)
    body = [_heading(heading), *parts, *_typed(answer.understood), how]
    return make_page(heading, "\n".join(body), _STYLE + style)


def _articles(answer: RecommendationList, prompt: Prompt) -> list[str]:
    """Build the HTML of an article with the explanation of each item."""
    parts = []
    for r in answer:
        number = "" if r.logprob is None else f", probability {r.probability:.4f}"
        number += ", pinned" * r.pinned
        title = f"{r.rank}. {escape_line(r.title)} <small>{escape_line(r.item_id)}{number}</small>"
        body = "" if r.explanation is None else _explanation(r.explanation, prompt)
        parts.append(f"<article>\n<h2>{title}</h2>\n{body}\n</article>")
    return parts


def of_item(item: ItemExplanation, prompt: Prompt) -> str:
    """Build the page for the explanation of one item."""
    listed = [[str(n), item_id, title, f"{score:.3f}"] for n, item_id, title, score in item.instead]
    parts = [
        _heading(item.title),
        _explanation(item.explanation, prompt, f"{item.item_id}: {standing(item)}.", changes(item)),
        *map(_line, item.notes),
        *_typed(item.understood),
        fold("Recommended items", _table(["rank", "item_id", "title", "score"], listed)),
        fold("How to read this page", _KEY + _line(_HOW)),
    ]
    return make_page(item.title, "\n".join(parts), _STYLE)


def _typed(understood: Sequence[Understood]) -> list[str]:
    """Build the HTML of a collapsed table that shows how a typed history was interpreted."""
    rows = [
        [u.text, u.behavior, u.title or u.note or "not understood, ignored"] for u in understood
    ]
    table = _table(["typed", "behavior", "understood as"], rows)
    return [fold("How the typed history was understood", table)] if rows else []


def _about(answer: RecommendationList) -> str:
    prior = answer.details.get("prior", {})
    name = name_with_prior(
        answer.model,
        prior.get("prior", "none"),
        prior.get("ranker", "none"),
        prior.get("role", FUSE),
    )
    return (
        f"System: {name}. Predicted behavior: {answer.behavior}. Prompt: "
        f"{answer.events} events, {answer.prompt_tokens} tokens."
    )


def _explanation(
    why: Explanation, prompt: Prompt, standing: str = "", more: Sequence[str] = ()
) -> str:
    """Build the HTML of an explanation.

    It contains the sentence and bars for the strongest events. The bars for all events, further
    facts and the prompt with its events highlighted are collapsed.

    Args:
        why: the explanation.
        prompt: the prompt.
        standing: a line to show below the sentence; empty for none.
        more: further facts.
    """
    tag = "written by the model, checked" if why.source == "generated" else "plain sentence"
    parts = [f'<p class="said">{escape_line(why.text)} <span class="tag">{tag}</span></p>']
    parts += [_line(standing)] if standing else []
    events, together = _events(why, prompt.times), _together(why)
    effects = [*events, *together]
    peak = max((abs(e.nats) for e in effects), default=0.0) or 1.0
    strongest = sorted(effects, key=lambda e: -abs(e.nats))[:_STRONGEST]
    visible = [e for e in strongest if abs(e.nats) >= _VISIBLE]
    if visible:
        parts.append(_bars(visible, peak))
    elif effects:
        parts.append(_line(f"No event changes the score by {_VISIBLE} nats or more."))
    if effects:
        number = f"All {len(events):,} events" if len(events) != 1 else "The only event"
        parts.append(fold(f"{number}, oldest first", _bars(effects, peak)))
    lines = [*more, *(_without(w.event, w.title, w.rank, why) for w in why.without)]
    if lines:
        parts.append(fold("What would change its rank", _list(lines)))
    if why.rejected:
        rejected = _list([f"{r.text} ({r.why})" for r in why.rejected])
        parts.append(fold("Sentences by the model that failed the check", rejected))
    parts.append(fold("The prompt that the model reads", _shaded(why, prompt)))
    return "\n".join(parts)


def _without(event: int, title: str, rank: int | None, why: Explanation) -> str:
    place = "not in the list" if rank is None else f"at rank {rank}"
    number = f"event {event + 1} of {len(why.evidence)}"
    return f"In a new search without {title} ({number}), the item is {place}."


def _events(why: Explanation, times: Sequence[str]) -> list[_Effect]:
    """Return the evidence from each event of the prompt, oldest first."""
    prior = any(e.nats_prior for e in why.evidence)
    effects = []
    for e in why.evidence:
        about = [f"event {e.event + 1} of {len(why.evidence)}"]
        about += [time for time in times[e.event : e.event + 1] if time]
        if prior:
            about.append(f"model {_signed(e.nats_model)}, prior {_signed(e.nats_prior)}")
        about += [f"same {name.replace('_', ' ')}: {value}" for name, value in e.shared.items()]
        name = f'<span class="quiet">{escape_line(e.behavior)}</span> {escape_line(e.title)}'
        effects.append(_Effect(name, escape_line(" \u00b7 ".join(about)), e.nats))
    return effects


def _together(why: Explanation) -> list[_Effect]:
    """Return the joint evidence from demonstrations, from older events and from the context."""
    effects = []
    if why.demonstrations is not None:
        effects.append(_Effect("all demonstrations together", "", why.demonstrations))
    if why.older is not None:
        many = f"{why.older.events:,} older event{'' if why.older.events == 1 else 's'}"
        effects.append(_Effect(f"{many} together", "only through the prior", why.older.nats))
    if why.context is not None:
        effects.append(_Effect("the context of the request", "", why.context))
    return effects


def _bars(effects: Sequence[_Effect], peak: float) -> str:
    """Build the HTML of a list with a bar for each effect, to the right or left of a line.

    Args:
        effects: the effects.
        peak: the evidence, in nats, of the longest possible bar.
    """
    rows = []
    for e in effects:
        bar = f'<i style="width:{100 * abs(e.nats) / peak:.1f}%"></i>' if _side(e.nats) else ""
        about = f"<small>{e.about}</small>" if e.about else ""
        rows.append(
            f'<li class="{_side(e.nats)}"><span class="bar">{bar}</span>'
            f'<span class="nats">{_signed(e.nats)}</span>'
            f'<span class="event">{e.name}{about}</span></li>'
        )
    return f"<ol>\n{chr(10).join(rows)}\n</ol>"


def _side(nats: float) -> str:
    """Return the CSS class for evidence; empty if it rounds to zero."""
    if abs(nats) < _VISIBLE:
        return ""
    return "supports" if nats > 0 else "opposes"


def _signed(nats: float) -> str:
    """Format a number of nats with its sign, which is omitted if the number rounds to zero.

    >>> _signed(0.123), _signed(-0.5), _signed(-0.001)
    ('+0.12', '\u22120.50', '0.00')
    """
    text = f"{nats:+.2f}".replace("-", "\u2212")
    return "0.00" if abs(nats) < _VISIBLE else text


def _shaded(why: Explanation, prompt: Prompt) -> str:
    """Build the HTML of the prompt, in which the color of each event shows its evidence.

    The hue and the underline show the sign of the evidence, and the strength of the color shows its
    size.
    """
    peak = max((abs(e.nats) for e in why.evidence), default=0.0) or 1.0
    text, done = "", 0
    for (start, stop), e in zip(prompt.spans, why.evidence, strict=False):
        if stop <= start:
            continue
        share = _FULL * (abs(e.nats) / peak) ** 0.5
        text += _kept(prompt.text[done:start])
        inside = prompt.text[start:stop]
        ending = inside[len(inside.rstrip("\n")) :]
        text += f'<mark class="{_side(e.nats)}" style="--share:{share:.0f}%" '
        text += f'title="event {e.event + 1}: {_signed(e.nats)} nats">'
        text += f"{_kept(inside.rstrip(chr(10)))}</mark>{ending}"
        done = stop
    return f"<pre>{text}{_kept(prompt.text[done:])}</pre>"


def _kept(text: str) -> str:
    """Escape a text for HTML, but keep its line breaks and the spaces at its beginning and end."""
    start, stop = len(text) - len(text.lstrip(" ")), len(text.rstrip(" "))
    return html.escape(text[:start] + printable(text[start:stop]) + text[max(stop, start) :])


def _heading(text: str) -> str:
    return f"<h1>{escape_line(text)}</h1>"


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
