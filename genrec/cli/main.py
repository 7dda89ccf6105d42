"""The command line: its commands in order, and how a mistake ends it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from genrec import __version__
from genrec.cli import data, evaluate, recommend, train
from genrec.errors import GenrecError
from genrec.text import printable

app = typer.Typer(
    name="genrec",
    help="Recommend by writing: a language model writes the next item's title, and only titles "
    "of your catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"genrec {__version__}")
        raise typer.Exit


for _command in (
    data.prepare,
    recommend.prompt,
    recommend.recommend,
    recommend.explain,
    recommend.rank,
    recommend.score,
    recommend.likes,
    evaluate.evaluate,
    train.train,
    train.examples,
    train.merge,
    evaluate.tune,
    data.audit,
    data.index,
    recommend.demo,
    recommend.doctor,
    data.embed,
):
    app.command()(_command)


def main() -> None:
    """Runs the command line; a user's mistake is one message and an exit code, no traceback."""
    # Threads of torch that wait should sleep, not spin: on a machine with other work a spinning one
    # keeps the one that it waits for from running, and all takes some three times as long. Read
    # when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except GenrecError as error:
        _stop(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("Interrupted.", 130)
    except BrokenPipeError:
        # The reader has gone; what Python still holds must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _stop(f"The system refused: {error}.", 1)
    except Exception as error:
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or code is None:
            raise
        show()  # a usage error of the command-line library
        sys.exit(code)


def _stop(message: str, code: int) -> NoReturn:
    typer.secho("Error: ", fg="red", err=True, nl=False)
    typer.echo(printable(message), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
