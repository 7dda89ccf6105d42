"""Trains as ``genrec train`` does; for several processes: accelerate launch scripts/train.py DIR ..."""

from __future__ import annotations

import sys

from genrec.cli.main import main

sys.argv = ["genrec", "train", *sys.argv[1:]]
main()
