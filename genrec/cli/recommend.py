"""Define the commands that query a model: prompt, recommend, explain, rank, score and likes.

The functions import heavy modules when they are called, as in the rest of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.loading import load_request
from genrec.cli.options import (
    AsJson,
    Data,
    FieldsOf,
    Given,
    HistoryOptions,
    ModelOptions,
    ServerOptions,
    command,
    in_panel,
)
from genrec.cli.values import read_ids
from genrec.config import OUTPUT, PRIOR, SHOWS, WHAT, QueryOptions, Settings
from genrec.errors import SettingsError

if TYPE_CHECKING:
    from genrec.pipeline.preflight import Wanted

if TYPE_CHECKING:
    from genrec.data.events import History
    from genrec.pipeline.types import RecommendationList
    from genrec.recommender import Recommender
    from genrec.reports.explanation_page import Prompt

# LISTING names the settings for finding a list of items. RANKING names the settings for ranking it.
LISTING = ("search", "max_nodes", "beam_size", "n_samples", "temperature")
RANKING = ("node_temperature", *in_panel(Settings, PRIOR))
# OWN names the options on the user's own items.
SAID = ("context", "note")  # what is said about the request itself
ASKED = ("query", "query_weights")  # what is asked for in words
OWN = ("show", "allow_returned", "allow_last_basket", "allow_same_title")

Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Also write an HTML page that explains the result and highlights each event in the prompt.",
        rich_help_panel=OUTPUT,
    ),
]
Items = Annotated[
    list[str] | None,
    typer.Option(
        "--items",
        metavar="FILE",
        help="Items to rank. FILE has one item_id per line.",
        show_default="all items",
        rich_help_panel=WHAT,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail if an item is not in the catalog. By default, such items are skipped and reported.",
        rich_help_panel=WHAT,
    ),
]


@command(
    "user", "history", "template", "language", "few_shot", "max_events", "model", "run", "json"
)
def prompt(
    data: Data,
    asked: HistoryOptions,
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, only=[*SAID, "query", "at"])],
    which: Annotated[ModelOptions, FieldsOf(ModelOptions, without=["quantize"])],
    settings: Annotated[Given, FieldsOf(Settings, without=[*LISTING, *RANKING])],
    json: AsJson = False,
) -> None:
    """Show the exact prompt that the model reads and its length in tokens."""
    from genrec.pipeline.preflight import Wanted
    from genrec.reports import console, terminal

    wanted = Wanted(query, keep_own=True)
    recommender, given = load_request(
        data, asked, which, settings, wanted, quiet=json, weights=False
    )
    history, understood = recommender.understand(given)
    encoded = recommender.prompt(_in_context(recommender, history, query))
    if json:
        console.print_json(
            {
                "schema_version": 1,
                "user_id": asked.user,
                "model": which.name,
                "template": recommender.template.name,
                "template_hash": recommender.template.hash,
                "text": encoded.text,
                "tokens": len(encoded.ids),
                "events": encoded.prompt.events,
                "dropped": encoded.prompt.dropped,
                "token_ids": list(encoded.ids),
                "understood": [asdict(u) for u in understood],
            }
        )
        return
    terminal.print_understood(understood)
    terminal.print_prompt(encoded, f"template {recommender.template.name}, model {which.name}")


@command("user", "history", "k", "show", "where", "model", "run", "prior", "explain", "json")
def recommend(
    data: Data,
    asked: HistoryOptions,
    query: QueryOptions,
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings)],
    server: ServerOptions,
    html: Html = None,
    json: AsJson = False,
) -> None:
    """Recommend the next items for a user or a typed history.

    If users of this dataset often return to items, two lists are shown: one of items that are new to the
    user, and one of items to get again. --show chooses a single list.
    """
    from genrec.pipeline.preflight import Wanted
    from genrec.reports import console, explanation_page, terminal
    from genrec.reports.rails import print_rails, rail_titles

    if html is not None:
        explanation_page.check(html)
        query = replace(query, explain=True)
    if not query.explain and (query.style, query.evidence) != ("reason", "full"):
        msg = (
            "--style and --evidence need explanations. Add --explain or --html, or leave them out."
        )
        raise SettingsError(msg)
    recommender, given = load_request(
        data, asked, which, settings, Wanted(query), quiet=json, server=server
    )
    several = shows_rails(recommender, query)
    rails: dict[str, RecommendationList] = {}
    with console.working("Searching ...", quiet=json) as recommender.log:
        if several:
            plain = replace(query, explain=query.explain and (html is not None or not json))
            shows = ("new", "again") if query.explain or not json else SHOWS
            rails = recommender.recommend_rails(given, shows=shows, options=plain)
        answer = rails.pop("all", None)
        if answer is None and (json or not several):
            answer = recommender.recommend(given, options=query)
    titles = rail_titles(recommender.behavior, recommender.template.verb(recommender.behavior).base)
    if html is not None:
        prompt = _prompt_of(recommender, given, query)
        if answer is not None and not several:
            page = explanation_page.of_list(answer, prompt)
        else:
            page = explanation_page.of_rails(rails, titles, prompt)
        explanation_page.write(html, page)
    if json and answer is not None:
        console.print_json(answer.to_dict() | ({"rails": rails_to_dict(rails)} if several else {}))
    elif answer is not None:
        terminal.print_recommendations(answer)
    else:
        print_rails(rails, titles)


def shows_rails(recommender: Recommender, query: QueryOptions) -> bool:
    """Return True if new items and items to get again are shown as two lists.

    This is the default if users of the dataset often choose items that they already had.
    """
    settings = recommender.settings
    chosen = query.show is not None or settings.exclude_seen is not None
    return not (chosen or recommender.exclude_seen or settings.decoder == "match")


def rails_to_dict(rails: Mapping[str, RecommendationList]) -> dict[str, Any]:
    """Convert the lists to a dictionary, keyed by name, that can be written as JSON."""
    return {show: answer.to_dict() for show, answer in rails.items()}


@command(
    "item", "user", "history", "k", "model", "run", "prior", "evidence", "style", "html", "json"
)
def explain(
    data: Data,
    item: Annotated[
        str,
        typer.Option(
            help="Item to explain, given by its item_id or title. It does not have to be among the "
            "recommended items.",
            rich_help_panel=WHAT,
        ),
    ],
    asked: HistoryOptions,
    query: Annotated[
        QueryOptions,
        FieldsOf(QueryOptions, only=["k", *OWN, *SAID, *ASKED, "per_group", "evidence", "style"]),
    ],
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["decoder", *LISTING])],
    html: Html = None,
    json: AsJson = False,
) -> None:
    """Explain why an item is or is not recommended.

    Shows the rank of the item, the effect of each event on its score, and changes to the history
    that would improve its rank. The effects show what the model relies on, not why a person acts in
    a certain way.
    """
    from genrec.pipeline.preflight import Wanted
    from genrec.reports import console, explanation_page, terminal

    if html is not None:
        explanation_page.check(html)
    wanted = Wanted(query, item=item, keep_own=True)
    recommender, given = load_request(data, asked, which, settings, wanted, quiet=json)
    with console.working("Explaining ...", quiet=json):
        explanation = recommender.explain(given, item, query.k, options=query)
    if html is not None:
        page = explanation_page.of_item(explanation, _prompt_of(recommender, given, query))
        explanation_page.write(html, page)
    if json:
        console.print_json(explanation.to_dict())
    else:
        terminal.print_item(explanation)


@command("items", "strict", "user", "history", "show", "model", "run", "prior", "json")
def rank(
    data: Data,
    asked: HistoryOptions,
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, only=[*OWN, *SAID, *ASKED])],
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["decoder", *LISTING])],
    items: Items = None,
    strict: Strict = False,
    json: AsJson = False,
) -> None:
    """Rank the given items, such as candidates from another system, by their exact probability.

    The user's own items are left out by the same rules as in `recommend`. The command `score` keeps
    them.
    """
    wanted = replace(_wanted(items, strict), options=query)
    _print_ranking(data, asked, which, settings, wanted, json=json)


@command("items", "strict", "user", "history", "model", "run", "prior", "json")
def score(
    data: Data,
    asked: HistoryOptions,
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, only=[*SAID, *ASKED])],
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["decoder", "exclude_seen", *LISTING])],
    items: Items = None,
    strict: Strict = False,
    json: AsJson = False,
) -> None:
    """Rank the given items as `rank` does, but keep items that the user has seen."""
    wanted = replace(_wanted(items, strict), options=query, keep_own=True)
    _print_ranking(data, asked, which, settings, wanted, json=json)


def _wanted(items: list[str] | None, strict: bool) -> Wanted:
    """Read the ids of the items to rank from the given files."""
    from genrec.pipeline.preflight import Wanted

    return Wanted(candidates=read_ids(items) if items else None, strict=strict)


def _print_ranking(
    data: Path,
    asked: HistoryOptions,
    which: ModelOptions,
    settings: Given,
    wanted: Wanted,
    *,
    json: bool,
) -> None:
    from genrec.reports import console, terminal

    recommender, given = load_request(data, asked, which, settings, wanted, quiet=json)
    ask = recommender.score if wanted.keep_own else recommender.rank
    with console.working("Scoring ...", quiet=json) as recommender.log:
        answer = ask(given, wanted.candidates, options=wanted.options, strict=wanted.strict)
    if json:
        console.print_json(answer.to_dict())
    else:
        terminal.print_recommendations(answer)


@command("items", "strict", "user", "history", "model", "run", "target_behavior", "json")
def likes(
    data: Data,
    items: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            help="Items to ask about. FILE has one item_id per line.",
            rich_help_panel=WHAT,
        ),
    ],
    asked: HistoryOptions,
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, only=SAID)],
    which: ModelOptions,
    settings: Annotated[
        Given,
        FieldsOf(
            Settings,
            without=[
                *("decoder", "normalization", "few_shot", "exclude_seen"),
                *LISTING,
                *RANKING,
            ],
        ),
    ],
    strict: Strict = False,
    json: AsJson = False,
) -> None:
    """Estimate the probability that the user wants each item by asking the model a yes-or-no question.

    This needs a model trained with `genrec train --objective pointwise`. A model without fine-tuning also
    answers, but its answers mean little. A run that was trained to predict the next item is refused,
    unless --template names the question.
    """
    from genrec.matching.history_notes import describe_gaps
    from genrec.pipeline.catalog_index import note_skipped
    from genrec.pipeline.run_use import describe_answers
    from genrec.reports import console, terminal

    wanted = replace(_wanted(items, strict), options=query, keep_own=True, asking=True)
    recommender, given = load_request(data, asked, which, settings, wanted, quiet=json)
    catalog = recommender.catalog
    known = [i for i in wanted.candidates or () if i in catalog]
    unknown = [i for i in wanted.candidates or () if i not in catalog]
    with console.working("Asking ...", quiet=json):
        history, understood = recommender.understand(given)
        probabilities = recommender.would_like(_in_context(recommender, history, query), known)
    pairs = sorted(zip(known, probabilities, strict=True), key=lambda pair: -pair[1])
    skipped = [note_skipped(unknown, len(known))] if unknown else []
    answer = {
        "schema_version": 1,
        "user_id": history.user_id,
        "model": recommender.model.name,
        "behavior": recommender.behavior,
        "template": recommender.question.template.name,
        "trained": recommender.run is not None and recommender.run.asks,
        "items": [
            {"item_id": i, "title": catalog[catalog.row(i)].title, "probability": p}
            for i, p in pairs
        ],
        "understood": [asdict(u) for u in understood],
        "unknown": unknown,
        "notes": [
            *describe_answers(recommender.run, recommender.model.name),
            *describe_gaps(understood),
            *skipped,
        ],
    }
    if json:
        console.print_json(answer)
    else:
        terminal.print_likes(answer, understood)


def _in_context(recommender: Recommender, history: History | str, query: QueryOptions) -> History:
    """Return a history in the context that the options of a request give."""
    return recommender.in_context(
        history, query.context, query.note, at=query.at, query=query.query
    )


def _prompt_of(recommender: Recommender, history: History | str, query: QueryOptions) -> Prompt:
    """Return the prompt for a history, with the time of each event and its position in the text."""
    from genrec.data.events import History
    from genrec.data.time_units import format_time
    from genrec.reports.explanation_page import Prompt

    text, spans = recommender.events_in_prompt(_in_context(recommender, history, query))
    dataset = recommender.dataset
    if not isinstance(history, History) or dataset is None or dataset.info.time_unit == "position":
        return Prompt(text, spans)
    events = history.latest(len(spans)).interactions
    times = [format_time(e.timestamp)[:16].replace("T", " ") for e in events]
    return Prompt(text, spans, times)
