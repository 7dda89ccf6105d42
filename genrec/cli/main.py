"""Run the command line. This module lists the commands and turns errors into messages."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, NoReturn

import typer

from genrec import __version__
from genrec.cli import data, demo, doctor, evaluate, recommend, train
from genrec.errors import GenrecError
from genrec.text import printable

app = typer.Typer(
    name="genrec",
    help="Recommend items with a language model that writes the title of the next item and can only "
    "write titles from your catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"genrec {__version__}")
        raise typer.Exit


for _panel, _commands in {
    "Start here": (demo.demo, doctor.doctor),
    "Recommend": (
        recommend.recommend, recommend.explain, recommend.rank, recommend.score, recommend.likes,
        recommend.prompt,
    ),
    "Data": (data.prepare, data.audit, data.index, data.embed),
    "Evaluate and train": (
        evaluate.evaluate, evaluate.tune, train.train, train.examples, train.merge,
    ),
}.items():  # fmt: skip
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)


def main() -> None:
    """Run the command line and exit.

    An error that the user can fix is printed as one message without a traceback. The exit code tells
    the kind of error.
    """
    # Idle threads of PyTorch should sleep instead of spinning. On a busy machine, a spinning thread
    # blocks the thread that it waits for, and everything takes about three times as long. PyTorch
    # reads this variable when it is loaded, which happens later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except GenrecError as error:
        _stop(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("Interrupted.", 130)
    except BrokenPipeError:
        # The reader has closed the pipe, so the remaining output must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _stop(_describe_os_error(error), 1)
    except Exception as error:
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or code is None:
            raise
        show()  # a usage error reported by Typer
        sys.exit(code)


def _describe_os_error(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}:
        where = error.filename or "the output"
        return f"Cannot write {where}: {reason}."
    if error.filename is not None:
        return f"Cannot open {error.filename}: {reason}."
    return f"The system reported an error: {reason}."


def _stop(message: str, code: int) -> NoReturn:
    typer.secho("Error: ", fg="red", err=True, nl=False)
    typer.echo(printable(message), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
