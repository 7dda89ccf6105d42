"""The order of packages."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Container
from graphlib import TopologicalSorter
from pathlib import Path
import pytest
import genrec

# A package may import from those before it, a module of a package from any other of its own that
# does not lead back.
ORDER = [
    "errors", "types", "version", "text", "keys", "config", "files", "runs",
    "data", "models", "prompts", "matching", "decoding", "baselines", "priors", "explain", "pipeline",
    "recommender", "evaluation", "training", "reports", "cli", "__main__",
]  # fmt: skip
