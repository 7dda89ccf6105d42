"""Define the command ``chat``, which imports heavy modules when called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.options import (
    AsJson,
    Data,
    FieldsOf,
    Given,
    HistoryOptions,
    ModelOptions,
    ServerOptions,
    command,
)
from genrec.config import WHAT, QueryOptions, Settings
from genrec.errors import RequestError

if TYPE_CHECKING:
    from genrec.pipeline.chat import ChatAnswer

_KEPT = 198  # turns that the next answer takes into account
User = Annotated[
    str | None,
    typer.Option(metavar="USER_ID", help="ID of a user in the dataset.", rich_help_panel=WHAT),
]
History = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help='History of a customer who is not in the dataset, such as "bought: TITLE; viewed: TITLE".',
        show_default="a new user",
        rich_help_panel=WHAT,
    ),
]


@command("user", "history", "k", "model", "run", "prior", "explain", "json")
def chat(
    data: Data,
    query: Annotated[QueryOptions, FieldsOf(QueryOptions, without=["query"])],
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["decoder"])],
    server: ServerOptions,
    user: User = None,
    history: History = "",
    json: AsJson = False,
) -> None:
    """Find items in a conversation: each line is what you want, and refines the lines before it.

    Lines are read from standard input, so a file can be piped in. "start over" forgets everything, and
    the end of the input (Ctrl-D) ends the conversation. With --json, the answer to each line is one line.
    """
    from genrec.cli.loading import load_request
    from genrec.pipeline.preflight import Wanted
    from genrec.reports import console

    asked = HistoryOptions(user, None if user is not None and not history else history)
    recommender, given = load_request(
        data, asked, which, settings, Wanted(query), quiet=json, weights=False, server=server
    )
    turns: list[object] = []
    for line in _lines(show=not json):
        turns.append(line)
        try:
            with console.working("Searching ...", quiet=json) as recommender.log:
                answer = recommender.chat(turns, given, options=query)  # type: ignore[arg-type]
        except RequestError as error:
            turns.pop()
            if json:
                console.print_json({"schema_version": 1, "error": str(error)}, line=True)
                sys.stdout.flush()
            else:
                console.note(str(error))
            continue
        turns = [*turns, answer.turn][-_KEPT:]
        if json:
            console.print_json(answer.to_dict(), line=True)
            sys.stdout.flush()
        else:
            _print(answer)


def _lines(*, show: bool) -> Iterator[str]:
    """Yield the lines of standard input that have text, after a sign in a terminal."""
    show = show and sys.stdin.isatty()
    while True:
        if show:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _print(answer: ChatAnswer) -> None:
    from genrec.reports import console, terminal

    if answer.sentence:
        console.print_line(answer.sentence)
    for question in answer.questions:
        console.print_line(question.question)
    if answer.list is not None and len(answer.list):
        names, rows, right = terminal.list_columns(answer.list)
        console.print_table(names, rows, right=right)
