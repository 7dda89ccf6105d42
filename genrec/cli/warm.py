"""Define the command ``warm``, which imports heavy modules when called."""

from __future__ import annotations

from typing import Annotated

from genrec.cli.options import AsJson, Data, FieldsOf, Given, ModelOptions, command, in_panel
from genrec.config import PROMPT, Settings


@command("model", "run", "line_numbers", "line_disk", "recent_events", "json")
def warm(
    data: Data,
    which: ModelOptions,
    settings: Annotated[
        Given,
        FieldsOf(
            Settings,
            only=[
                *(n for n in in_panel(Settings, PROMPT) if n != "attention"),
                "line_numbers",
                "line_memory",
                "line_disk",
                "target_behavior",
                "seed",
            ],
        ),
    ],
    json: AsJson = False,
) -> None:
    """Read the lines of all items in advance, for lists with --attention by_event.

    The lines are stored in the dataset folder, and later commands and processes find them there. A line
    of the same item with a rating or another value is a different line; such lines are stored as
    requests come, with --line-disk.
    """
    from genrec.cli.loading import load_recommender
    from genrec.data.dataset import Dataset
    from genrec.reports import console

    given = Given({**settings, "attention": "by_event"}, settings.named | {"attention"})
    Settings.of(given)  # report invalid settings before loading the data
    dataset = Dataset.load(data)
    with console.working("Reading lines ...", quiet=json) as log:
        recommender = load_recommender(dataset, which, given, log)
        found = recommender.warm()
    if json:
        console.print_json({"schema_version": 1, **found.to_dict()})
        return
    store = found.store
    console.print_line(
        f"{found.lines:,} of {found.wanted:,} lines read in {found.seconds:.0f} s; "
        f"{store['disk_lines']:,.0f} lines in {store['disk_mib']:,.1f} MiB -> {found.folder}"
    )
    if found.lines < found.wanted:
        console.print_line(
            "The files have reached their limit. Raise --line-disk, or store smaller numbers with "
            "--line-numbers int8."
        )
    if found.coverage is not None:
        console.print_line(
            f"Of the older events of {found.users:,} users, {found.coverage:.1%} are stored."
        )
