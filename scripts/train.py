"""Train as ``genrec train`` does, from a script that ``accelerate launch`` can start.

accelerate launch scripts/train.py DIR --out RUN
"""

from __future__ import annotations

import sys

from genrec.cli.main import main

sys.argv = ["genrec", "train", *sys.argv[1:]]
main()
