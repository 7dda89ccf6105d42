"""What loads when, and which module may import which."""

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
from support.house import ORDER

import genrec

PACKAGE = Path(genrec.__file__).parent


def modules() -> dict[str, Path]:
    """Every module by its dotted name without ``genrec.``; a package is its ``__init__``."""
    paths = {
        ".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")
    }
    found = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    del found["__init__"]
    return found


def imports(path: Path, known: Container[str]) -> set[str]:
    """The modules of genrec that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name.removeprefix("genrec.") in known else node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {n.removeprefix("genrec.") for n in found if n.startswith("genrec.")}


def test_packages_import_one_way() -> None:
    known = modules()
    assert {name.partition(".")[0] for name in known} == set(ORDER)
    for name, path in known.items():
        for other in imports(path, known):
            own, theirs = name.partition(".")[0], other.partition(".")[0]
            assert ORDER.index(theirs) <= ORDER.index(own), (
                f"{name} imports {other}, which is above it"
            )


def test_no_modules_import_in_a_circle() -> None:
    known = modules()
    TopologicalSorter({name: imports(path, known) for name, path in known.items()}).prepare()


def test_nothing_private_is_imported() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genrec"):
                private = [a.name for a in node.names if re.match("_[^_]", a.name)]
                assert not private, f"{path} imports {private} from {node.module}"


def test_modules_are_short_or_say_why() -> None:
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        reason = "is longer than" in (ast.get_docstring(ast.parse(text)) or "")
        assert len(text.splitlines()) <= 500 or reason, f"{name}: split it, or give the reason"


def test_functions_take_few_arguments_or_an_options_object() -> None:
    keyword_api = {"prepare", "from_tables", "evaluate", "faithfulness", "train"}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name not in keyword_api:
                given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                count = len([a for a in given if a.arg not in {"self", "cls"}])
                assert count <= 8, f"{name}.{node.name} takes {count} arguments"


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import genrec",
        "import genrec; genrec.Catalog; genrec.Recommender; genrec.datasets.load; genrec.evaluate",
        "import genrec.cli.main\nfrom typer.testing import CliRunner\n"
        "assert CliRunner().invoke(genrec.cli.main.app, ['--help']).exit_code == 0",
    ],
)
def test_heavy_libraries_load_late(code: str) -> None:
    heavy = {"torch", "transformers", "peft", "sentence_transformers", "gguf", "datasets", "cornac"}
    assert not loaded(code) & heavy


def test_public_names() -> None:
    assert sorted(genrec.__all__) == [
        "Catalog", "Client", "Dataset", "GenrecError", "History", "Interaction", "Interactions", "Item",
        "LanguageModel", "Recommendation", "RecommendationList", "Recommender", "Settings",
        "SimilarItems",
        "__version__", "compare", "datasets", "evaluate", "fit",
    ]  # fmt: skip
    for name in genrec.__all__:
        assert getattr(genrec, name) is not None
    with pytest.raises(AttributeError, match="nope"):
        genrec.nope  # noqa: B018


def test_every_error_is_in_the_tree() -> None:
    from genrec import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    assert len(classes) >= 7
    for one in classes:
        assert issubclass(one, errors.GenrecError)
        assert one.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_the_command_lets_waiting_threads_sleep_unless_told_otherwise(given: str | None) -> None:
    code = (
        "import os, sys\nfrom genrec.cli.main import main\nsys.argv = ['genrec', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\nprint(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split()[-1] == (given or "PASSIVE")
