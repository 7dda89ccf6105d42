"""``python -m genrec``."""

from genrec.cli import main

main()
