"""Draw the picture of the README: run a command in a terminal and save what it prints as SVG.

    python scripts/make_picture.py

The command runs with the real model on the embedded shop; nothing in the picture is edited.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "recommend.svg"
WIDTH = 104
ARGUMENTS = (
    "recommend", "shop", "-k", "3", "--explain", "--exclude-seen", "--model-role", "fuse", "--history",
    "bought hot water bottle keep calm and red retrospot mug, viewed jumbo bag pink polkadot",
)  # fmt: skip


def run_in_terminal(arguments: Sequence[str], folder: str) -> str:
    """Run genrec in a pseudo-terminal and return what it prints to standard output, with colors."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "genrec", *arguments],
        cwd=folder, stdout=theirs, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the terminal was closed by the process
            break
        if not piece:
            break
        pieces.append(piece)
    if process.wait():
        msg = f"genrec ended with exit code {process.returncode}"
        raise SystemExit(msg)
    return b"".join(pieces).decode("utf-8").replace("\r\n", "\n")


def main() -> None:
    """Prepare the embedded shop in a temporary folder, recommend, and write the picture."""
    sample = ROOT / "genrec" / "data" / "samples" / "online_retail_demo"
    files = ("--items", f"{sample}/items.csv.gz", "--interactions", f"{sample}/interactions.csv.gz")
    with tempfile.TemporaryDirectory() as folder:
        run_in_terminal(("prepare", *files, "--out", "shop"), folder)
        output = run_in_terminal(ARGUMENTS, folder)
    *words, history = ARGUMENTS
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.assemble(("$ ", "bold green"), f"genrec {' '.join(words)} \\"))
        console.print(Text(f'    "{history}"'))
        console.print(Text.from_ansi(output))
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        console.save_svg(str(PICTURE), title="genrec", theme=MONOKAI, unique_id="genrec")
    sys.stdout.write(output)


if __name__ == "__main__":
    main()
