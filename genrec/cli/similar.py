"""Define the command ``similar``, which imports heavy modules when called."""

from __future__ import annotations

from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, FieldsOf, Given, command
from genrec.config import SIMILAR_BY, SIMILAR_OPTIONS, WHAT, QueryOptions, Settings


@command("item", "by", "k", "where", "deny", "encoder", "json")
def similar(
    data: Data,
    item: Annotated[
        list[str],
        typer.Option(
            help="Item to start from, given by its item_id or title. Repeat the option to find what "
            "goes with several items together.",
            rich_help_panel=WHAT,
        ),
    ],
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, only=SIMILAR_OPTIONS)],
    settings: Annotated[
        Given,
        FieldsOf(
            Settings,
            only=["encoder", "prior_sources", "prior_events", "target_behavior", "seed"],
        ),
    ],
    by: Annotated[
        str,
        typer.Option(
            metavar="|".join(SIMILAR_BY),
            help="What makes items similar. prior: the same users choose both, or one soon after "
            "the other, according to the collaborative prior. titles: their titles are alike. both: the mean of "
            "the two.",
            rich_help_panel=WHAT,
        ),
    ] = "both",
    json: AsJson = False,
) -> None:
    """Find the items that go with an item, such as products that are bought together.

    No language model is loaded. An item without events is compared by its title.
    """
    from genrec.data.dataset import Dataset
    from genrec.pipeline.similar import SimilarItems
    from genrec.reports import console, similar_items

    dataset = Dataset.load(data)
    with console.working("Comparing items ...", quiet=json) as log:
        finder = SimilarItems(dataset, log=log, **settings)
        found = finder.find(item, by=by, options=query)
    if json:
        console.print_json(found.to_dict())
    else:
        similar_items.print_similar(found)
