"""Print the packages that genrec needs and that are installed, as a CycloneDX document.

python scripts/sbom.py                 # all packages that the installed genrec can use
python scripts/sbom.py ranker          # only those of genrec itself and of these extras
python scripts/sbom.py --installed     # all packages of this environment
python scripts/sbom.py --out FILE      # write a file

The document is made from the metadata of the installed packages, without a network. The same packages give the
same document.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAME = "genrec"


def needed(extras: Iterable[str], others: Iterable[str] = ()) -> dict[str, set[str]]:
    """Return each installed package that genrec needs, with the packages that it needs itself.

    Args:
        extras: the extras of genrec.
        others: further packages.
    """
    found: dict[str, set[str]] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(NAME, extra) for extra in ("", *extras)]
    waiting += [(canonicalize_name(name), "") for name in others]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        try:
            requirements = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue
        own = found.setdefault(name, set())
        for requirement in map(Requirement, requirements):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            other = canonicalize_name(requirement.name)
            own.add(other)
            waiting += [(other, e) for e in ("", *requirement.extras)]
    return {name: {o for o in own if o in found} for name, own in found.items()}


def describe(name: str) -> dict[str, Any]:
    """Return the component of an installed package."""
    about = metadata.metadata(name)
    version = about["Version"]
    purl = f"pkg:pypi/{name}@{version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": about["Name"],
        "version": version,
        "purl": purl,
    }
    if licence := _license(about):
        component["licenses"] = [licence]
    return component


def _license(about: metadata.PackageMetadata) -> dict[str, Any] | None:
    """Return the license that a package names: an SPDX expression, or else a short name."""
    if expression := about.get("License-Expression"):
        return {"expression": expression}
    classifiers = [c for c in about.get_all("Classifier") or () if c.startswith("License :: ")]
    named = [c.rpartition(" :: ")[2] for c in classifiers]
    given = (about.get("License") or "").strip()
    name = given if given and len(given) < 100 and "\n" not in given else ", ".join(named)
    return {"license": {"name": name}} if name else None


def document(extras: Sequence[str], others: Iterable[str] = ()) -> dict[str, Any]:
    """Return the document; see ``needed``."""
    packages = needed(extras, others)
    components = {name: describe(name) for name in sorted(packages)}
    references = {name: c["bom-ref"] for name, c in components.items()}
    root = {**components.pop(NAME), "type": "application"}
    same = "".join(references.values())
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, same)}",
        "version": 1,
        "metadata": {"component": root},
        "components": [*components.values()],
        "dependencies": [
            {"ref": references[name], "dependsOn": sorted(references[o] for o in own)}
            for name, own in sorted(packages.items())
        ],
    }


def main() -> None:
    """Print or write the document."""
    known = metadata.metadata(NAME).get_all("Provides-Extra") or []
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument("--installed", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if unknown := [e for e in arguments.extras if e not in known]:
        parser.error(f"genrec has no extra {unknown[0]!r}. Expected: {', '.join(known)}.")
    extras = arguments.extras or [e for e in known if e not in {"dev", "docs"}]
    others = [d.metadata["Name"] for d in metadata.distributions()] if arguments.installed else []
    text = json.dumps(document(extras, others), indent=2)
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text + "\n", encoding="utf-8")
        print(f"{arguments.out}: {text.count('bom-ref') - 1} packages")


if __name__ == "__main__":
    main()
