"""How much the tests try: little each time, and more with ``scripts/test --full``."""

from __future__ import annotations

import os

EXAMPLES = int(os.environ.get("GENREC_EXAMPLES", "25"))  # of each property
FULL = EXAMPLES > 25
