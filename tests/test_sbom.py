"""The list of packages is complete, points at itself only, and is the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "sbom.py"


def made(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("arguments", [(), ("ranker",), ("--installed",)])
def test_it_has_every_package_once_and_is_the_same_each_time(arguments: tuple[str, ...]) -> None:
    document = made(*arguments)
    parts = document["components"]
    names = [p["name"] for p in parts]
    assert len(set(names)) == len(names)
    for part in parts:
        assert part["version"] == metadata.version(part["name"])
        assert re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[^@]+", part["purl"])
    known = {p["bom-ref"] for p in [*parts, document["metadata"]["component"]]}
    for one in document["dependencies"]:
        assert {one["ref"], *one["dependsOn"]} <= known
    assert made(*arguments) == document
    assert {"torch", "numpy", "tokenizers"} <= set(names)  # tokenizers is needed by transformers
    assert ("fastapi" in names) == (arguments != ("ranker",))
    assert ("pytest" in names) == (arguments == ("--installed",))
