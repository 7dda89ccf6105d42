"""Define the commands that query a model: prompt, recommend, explain, rank, score and likes.

The functions import heavy modules when they are called, as in the rest of the command line.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.loading import load_request, use_float32
from genrec.cli.options import (
    AsJson,
    Data,
    FieldsOf,
    Given,
    HistoryOptions,
    ModelOptions,
    command,
    in_panel,
)
from genrec.cli.values import read_ids
from genrec.config import OUTPUT, PRIOR, WHAT, QueryOptions, Settings
from genrec.errors import SettingsError

# LISTING names the settings for finding a list of items. RANKING names the settings for ranking it.
LISTING = ("search", "max_nodes", "beam_size", "n_samples", "temperature")
RANKING = ("node_temperature", *in_panel(Settings, PRIOR))

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


@command(
    "user", "history", "template", "language", "few_shot", "max_events", "model", "run", "json"
)
def prompt(
    data: Data,
    asked: HistoryOptions,
    which: Annotated[ModelOptions, FieldsOf(ModelOptions, without=["quantize"])],
    settings: Annotated[Given, FieldsOf(Settings, without=[*LISTING, *RANKING])],
    json: AsJson = False,
) -> None:
    """Show the exact prompt that the model reads, and the number of its tokens."""
    from genrec.reports import console, terminal

    recommender, given = load_request(data, asked, which, settings, quiet=json)
    history, understood = recommender.understand(given)
    encoded = recommender.prompt(history)
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


@command(
    "user", "history", "k", "where", "exclude_seen", "model", "run", "prior", "explain", "json"
)
def recommend(
    data: Data,
    asked: HistoryOptions,
    query: QueryOptions,
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings)],
    html: Html = None,
    json: AsJson = False,
) -> None:
    """Recommend the next items for a user or a typed history."""
    from genrec.reports import console, explanation_page, terminal

    if html is not None:
        explanation_page.check(html)
        query = replace(query, explain=True)
    if query.explain:
        which = use_float32(which)
    elif (query.style, query.evidence) != ("reason", "full"):
        msg = (
            "--style and --evidence need explanations. Add --explain or --html, or leave them out."
        )
        raise SettingsError(msg)
    recommender, given = load_request(data, asked, which, settings, quiet=json)
    with console.working("Searching ...", quiet=json):
        answer = recommender.recommend(given, query.k, options=query)
    if html is not None:
        page = explanation_page.of_list(answer, *recommender.events_in_prompt(given))
        explanation_page.write(html, page)
    if json:
        console.print_json(answer.to_dict())
    else:
        terminal.print_recommendations(answer)


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
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, only=["k", "evidence", "style"])],
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["decoder", *LISTING])],
    html: Html = None,
    json: AsJson = False,
) -> None:
    """Explain why an item is or is not recommended.

    Shows the rank of the item, the effect of each event on its score, and changes to the history that
    would improve its rank. The effects show what the model relies on, not why a person acts in a
    certain way.
    """
    from genrec.reports import console, explanation_page, terminal

    if html is not None:
        explanation_page.check(html)
    recommender, given = load_request(data, asked, use_float32(which), settings, quiet=json)
    with console.working("Explaining ...", quiet=json):
        explanation = recommender.explain(given, item, query.k, options=query)
    if html is not None:
        page = explanation_page.of_item(explanation, *recommender.events_in_prompt(given))
        explanation_page.write(html, page)
    if json:
        console.print_json(explanation.to_dict())
    else:
        terminal.print_item(explanation)


@command("items", "user", "history", "exclude_seen", "model", "run", "prior", "json")
def rank(
    data: Data,
    asked: HistoryOptions,
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["decoder", *LISTING])],
    items: Items = None,
    json: AsJson = False,
) -> None:
    """Rank the given items, such as candidates from another system, by their exact probability.

    If users of this dataset rarely return to items, items that the user already had are left out. The
    command `score` keeps them.
    """
    _print_ranking(data, asked, which, settings, items, keep_seen=False, json=json)


@command("items", "user", "history", "model", "run", "prior", "json")
def score(
    data: Data,
    asked: HistoryOptions,
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["decoder", "exclude_seen", *LISTING])],
    items: Items = None,
    json: AsJson = False,
) -> None:
    """Rank the given items as `rank` does, but keep items that the user already had."""
    _print_ranking(data, asked, which, settings, items, keep_seen=True, json=json)


def _print_ranking(
    data: Path,
    asked: HistoryOptions,
    which: ModelOptions,
    settings: Given,
    items: list[str] | None,
    *,
    keep_seen: bool,
    json: bool,
) -> None:
    from genrec.reports import console, terminal

    candidates = read_ids(items) if items else None
    recommender, given = load_request(data, asked, which, settings, quiet=json)
    with console.working("Scoring ...", quiet=json):
        answer = (recommender.score if keep_seen else recommender.rank)(given, candidates)
    if json:
        console.print_json(answer.to_dict())
    else:
        terminal.print_recommendations(answer)


@command("items", "user", "history", "model", "run", "target_behavior", "json")
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
    json: AsJson = False,
) -> None:
    """Estimate the probability that the user wants each item by asking the model a yes-or-no question.

    This works best with a model trained with `genrec train --objective pointwise`.
    """
    from genrec.reports import console, terminal

    candidates = read_ids(items)
    recommender, given = load_request(data, asked, which, settings, quiet=json)
    with console.working("Asking ...", quiet=json):
        history, understood = recommender.understand(given)
        probabilities = recommender.would_like(history, candidates)
    catalog = recommender.catalog
    pairs = sorted(zip(candidates, probabilities, strict=True), key=lambda pair: -pair[1])
    answer = {
        "schema_version": 1,
        "user_id": history.user_id,
        "model": recommender.model.name,
        "behavior": recommender.behavior,
        "items": [
            {"item_id": i, "title": catalog[catalog.row(i)].title, "probability": p}
            for i, p in pairs
        ],
        "understood": [asdict(u) for u in understood],
    }
    if json:
        console.print_json(answer)
    else:
        terminal.print_likes(answer, understood)
