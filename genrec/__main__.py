"""Run the command line with ``python -m genrec``."""

from genrec.cli.main import main

main()
