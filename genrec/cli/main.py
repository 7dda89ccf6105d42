"""Run the command line. This module lists the commands and turns errors into messages."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from functools import partial
from typing import Annotated, NoReturn

import typer

from genrec import __version__
from genrec.cli import (
    audit,
    batch,
    chat,
    data,
    demo,
    doctor,
    erase,
    evaluate,
    federate,
    fit,
    profile,
    recommend,
    search,
    sentiment,
    serve,
    similar,
    train,
    vectors,
    warm,
)  # fmt: skip
from genrec.cli.startup import collect_rarely
from genrec.errors import GenrecError
from genrec.files import describe_error
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
        recommend.recommend, chat.chat, recommend.explain, recommend.rank, recommend.score, recommend.likes,
        similar.similar, profile.profile, recommend.prompt,
    ),
    "Many users": (batch.batch,),
    "Serve": (serve.serve, serve.key),
    "Data": (data.prepare, audit.audit, vectors.index, vectors.embed, warm.warm, sentiment.sentiment,
        erase.erase),
    "Evaluate and train": (
        fit.fit, search.search, evaluate.evaluate, evaluate.tune, train.train, train.examples, train.merge,
        federate.federate,
    ),
}.items():  # fmt: skip
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)


# Similar characters for those that the encoding of a terminal may lack
_SIMILAR = {
    "█": "#", "░": "-", "±": "+/-", "–": "-", "—": "-", "…": "...", "→": "->", "×": "x", "“": '"',
    "”": '"', "‘": "'", "’": "'", "：": ":", "，": ",", "；": ";",
}  # fmt: skip


def _replace_lacking(error: UnicodeError, otherwise: str) -> tuple[str, int]:
    """Replace characters that an encoding lacks with similar ones where possible.

    Other characters are passed to the standard error handler named ``otherwise``.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    similar = (_SIMILAR.get(c) or c.encode("ascii", otherwise).decode() for c in lacking)
    return "".join(similar), error.end


def _accept_any_encoding() -> None:
    """Let output streams replace characters that their encoding lacks, instead of failing.

    Such characters are replaced with similar ones where possible. The others become question marks
    in results and backslash escapes in messages.
    """
    for stream, given, otherwise in (
        (sys.stdout, "strict", "replace"),
        (sys.stderr, "backslashreplace", "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == given:
            name = f"genrec.{otherwise}"
            codecs.register_error(name, partial(_replace_lacking, otherwise=otherwise))
            stream.reconfigure(errors=name)


def main() -> None:
    """Run the command line and exit.

    An error that the user can fix is printed as one message without a traceback. The exit code
    indicates the kind of error.
    """
    # Idle threads of PyTorch should sleep instead of spinning. On a busy machine, a spinning thread
    # blocks the thread that it waits for, and everything takes about three times as long. PyTorch
    # reads this variable when it is loaded, which happens later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    collect_rarely()
    _accept_any_encoding()
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()  # here, a full disk still gives a message
        sys.exit(code)
    except GenrecError as error:
        _stop(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _stop("Interrupted.", 130)
    except BrokenPipeError:
        _discard_output()  # the reader has closed the pipe
        sys.exit(141)
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        _stop(_describe_os_error(error), 1)
    except Exception as error:
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or code is None:
            raise
        show()  # a usage error reported by Typer
        sys.exit(code)


def _discard_output() -> None:
    """Discard output that could not be written, so that Python does not try to write it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe_os_error(error: OSError) -> str:
    reason = describe_error(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}:
        where = error.filename or "the output"
        return f"Cannot write {where}: {reason}."
    if error.filename is not None:
        return f"Cannot open {error.filename}: {reason}."
    if "temporary directory" in reason:  # from Python's tempfile, without an errno that would help
        return (
            "No temporary folder can be written. Expected a folder in which small files can be created. "
            "Free some space, set TMPDIR to a folder that can be written, or raise the limit on the "
            "size of files (ulimit -f)."
        )
    return f"The system reported an error: {reason}."


def _stop(message: str, code: int) -> NoReturn:
    typer.secho("Error: ", fg="red", err=True, nl=False)
    sys.stderr.write(printable(message) + "\n")  # typer.echo would write UTF-8 to an ASCII stream
    sys.exit(code)


if __name__ == "__main__":
    main()
