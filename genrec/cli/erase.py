"""Define the command ``erase``, which imports heavy modules when called."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, command

_WHERE = "Where else the user is"


@command()
def erase(
    data: Data,
    user: Annotated[str, typer.Option(metavar="ID", help="The user to erase.")],
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that contains run folders, at any depth. Their saved priors are counted again, "
            "and those that learned from the user are listed. Can be repeated.",
            show_default="the folder runs, if there is one",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that `genrec evaluate --out` or `genrec batch --out` wrote. Can be repeated.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database of `genrec serve`.",
            show_default="service.db in DIR, if there is one",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Erase a user from a dataset folder, from saved priors, from results and from the service's store.

    Fitted baselines and the cache are removed; they are made again when they are needed. What a model
    learned from the user's events stays in its weights, so the runs that learned from them are named.
    """
    from genrec.data.erasing import erase_from_dataset, erase_from_results
    from genrec.priors.erasing import erase_from_run, find_runs
    from genrec.reports import console

    url = _find_store(data, store)
    with console.working("Erasing ...", quiet=json):
        stored = 0 if url is None else _erase_from_store(url, user)
        found, before, after = erase_from_dataset(data, user)
        folders = runs if runs else [Path("runs")]
        erased = [
            erase_from_run(run, user, before, after)
            for folder in folders
            for run in find_runs(folder)
        ]
        lines = sum(erase_from_results(folder, user) for folder in results or ())
    if json:
        console.print_json(
            {
                "schema_version": 1,
                "user_id": user,
                "events": found.events,
                "rejected": found.rejected,
                "removed": list(found.removed),
                "store_events": stored,
                "results": lines,
                "runs": [
                    {"run": str(e.run), "learned": e.learned, "prior": e.prior} for e in erased
                ],
            }
        )
        return
    console.print_line(
        f"Erased {found.events:,} events of {user!r} from {data}, {found.rejected:,} rejected rows, "
        f"{stored:,} events of the service and {lines:,} lines of results."
    )
    if found.removed:
        console.print_line(
            f"Removed {' and '.join(found.removed)}, which are made again when they are needed."
        )
    for each in erased:
        if each.prior != "none":
            console.print_line(f"The saved prior of {each.run}: {each.prior}.")
        if each.learned:
            console.print_line(
                f"The weights of {each.run} learned from this user. Train again: genrec train "
                f"{quote(str(data))} --out NEW_RUN, and delete the old run."
            )
    console.print_line(
        "Restart services that use this dataset. Backups, exports and your own files are not touched."
    )


def _find_store(data: Path, store: str | None) -> str | None:
    """Return the address of the service's database; None if there is none."""
    if store is not None:
        return store
    if not (data / "service.db").is_file():
        return None
    from genrec.service.tables import sqlite_url

    return sqlite_url(data)


def _erase_from_store(url: str, user: str) -> int:
    from genrec.service.store import Store

    opened = Store(url)
    try:
        return opened.forget_user(user)
    finally:
        opened.close()
