"""Run the command-line interface: the program ``genrec``, or ``python -m genrec``."""

import sys


def run() -> None:
    """Run the command line, and end with a short message if Ctrl-C interrupts the imports."""
    try:
        from genrec.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("Error: Interrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
