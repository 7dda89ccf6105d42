"""Print lines, tables, progress bars and JSON to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from genrec.json_text import to_json
from genrec.text import one_line, printable

Row = Sequence[str]


def out() -> Console:
    """Return the console for results, which writes to standard output."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Return the console for progress messages, which writes to standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any, *, line: bool = False) -> None:
    """Print a plain value as JSON to standard output, on one line if ``line`` is True.

    Non-ASCII characters are escaped if the encoding of the output is not a Unicode encoding.

    Raises:
        TypeError: the value is not plain; see ``to_json``.
        ValueError: the value contains NaN or an infinite number.
    """
    escape = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = to_json(value, indent=None, escape=escape) if line else to_json(value, escape=escape)
    sys.stdout.write(text + "\n")


def print_line(text: str, style: str = "") -> None:
    """Print a line of plain text to standard output, without interpreting markup.

    Args:
        text: the line.
        style: a style of the rich library, such as ``bold``, which is used only in a terminal.
    """
    console = out()
    text = printable(text)
    if console.is_terminal:
        console.print(Text(text, style=style))
    else:
        sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Print a remark on a result.

    In a terminal, the remark is dimmed. Otherwise, it is written to standard error.
    """
    console = out()
    text = printable(text)
    if console.is_terminal:
        console.print(Text(text, style="dim"))
    else:
        sys.stderr.write(text + "\n")


def print_table(header: Row, rows: Sequence[Row], *, right: Sequence[int] = ()) -> None:
    """Print a table to standard output.

    In a terminal, the columns are aligned. Otherwise, the cells are separated by tabs.

    Args:
        header: the names of the columns.
        rows: the cells of each row. Control characters and tabs in them are replaced by spaces, and
            no cell is truncated.
        right: the indices of the columns to align to the right.
    """
    console = out()
    clean = [[one_line(c) for c in row] for row in rows]
    if not console.is_terminal:
        for row in [list(header), *clean]:
            sys.stdout.write("\t".join(row) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in clean:
        table.add_row(*[Text(c) for c in row])
    Console(highlight=False).print(table)


@contextmanager
def working(message: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show a message during a slow operation, and yield a function that updates the message.

    In a terminal, a single line is updated. Otherwise, each message is written as a line to standard
    error.
    """
    console = err()
    if quiet:
        yield lambda text: None
    elif console.is_terminal:
        with console.status(Text(message)) as status:
            yield lambda text: status.update(Text(text))
    else:
        yield lambda text: print(text, file=sys.stderr, flush=True)  # noqa: T201


class Bar:
    """A progress bar on standard error, which is called with the number of steps done so far."""

    def __init__(self, bar: Progress | None = None, message: str = "", total: int = 0) -> None:
        """Add a bar with a message to a display.

        Args:
            bar: the display; None to show nothing.
            message: the text before the bar.
            total: the total number of steps.
        """
        self._bar = bar
        self._task = TaskID(0) if bar is None else bar.add_task(message, total=total)

    def __call__(self, done: int) -> None:
        """Show the number of steps done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def log(self, text: str) -> None:
        """Print a line of text above the bar."""
        if self._bar is not None:
            self._bar.console.print(Text(printable(text)))


@contextmanager
def progress(message: str, total: int, *, quiet: bool = False) -> Iterator[Bar]:
    """Show a progress bar on standard error while the ``with`` block runs.

    Args:
        message: the text before the bar.
        total: the total number of steps.
        quiet: True to show nothing.
    """
    if quiet:
        yield Bar()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as bar:
        yield Bar(bar, message, total)


def use_stderr(text: str) -> None:
    """Write a line to standard error exactly as it is, without any formatting."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
