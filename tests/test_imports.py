"""What loads when, and which module may import which."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import genrec

PACKAGE = Path(genrec.__file__).parent

# Imports go one way: a module may import from lines above its own, and its neighbours on its line
# only to the left.
ORDER = [
    ["errors", "text", "folders", "reading", "config", "gate", "recipe"],
    ["weights", "embedding", "alike"],
    ["tables", "hub", "catalog", "interactions", "metrics", "published"],
    ["prompts", "trie", "overlay", "encoding", "predicates", "filters", "diversity", "priors"],
    ["checkpoint", "rows"],
    ["ingest", "dataset", "datasets", "vectors", "baselines", "protocols", "matching", "reader"],
    ["collaborative", "fusing"],
    ["factors", "sasrec", "textseq", "feedback", "example_files"],
    [
        "losses",
        "token_tree",
        "device_beam",
        "model",
        "decoding",
        "generation",
        "claims",
        "phrases",
        "branches",
        "evidence",
    ],
    ["explaining", "whynot", "hidden", "liking"],
    ["answers"],
    ["stock", "asking", "searching", "writing", "answering"],
    ["recommender", "doctor"],
    ["tuning", "systems", "results", "evaluation", "judgements", "faithfulness", "report", "audit"],
    ["curves", "adapters", "learning", "objectives", "session"],
    ["training", "pointwise"],
    ["display", "page", "demo", "options"],
    ["commands_data", "commands_ask", "commands_learn", "cli"],
]
# Inside functions only: weights converts with a loaded transformers, and embedding loads one,
# quietly; vectors asks a model for its states; Interactions.read is a door to ingest, baselines.fit one to those that need more,
# and training.train one to another objective.
LATE = {
    ("weights", "model"), ("embedding", "model"), ("interactions", "ingest"),
    ("vectors", "hidden"), ("vectors", "model"), ("baselines", "factors"), ("baselines", "sasrec"), ("baselines", "textseq"),
    ("training", "pointwise"),
}  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genrec"):
            module = (node.module or "").removeprefix("genrec").removeprefix(".")
            found |= {module} if module else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("genrec.") for a in node.names if a.name.startswith("genrec.")
            }
    return found - {"__version__"}


def test_imports_go_one_way() -> None:
    place = [name for line in ORDER for name in line]
    modules = {p.stem: p for p in PACKAGE.glob("*.py") if p.stem not in {"__init__", "__main__"}}
    assert set(modules) == set(place), "ORDER lists every module once"
    for name, path in modules.items():
        for other in imports(path):
            assert (name, other) in LATE or place.index(other) < place.index(name), (
                f"{name} imports {other}, which comes after it"
            )


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
        "import genrec.cli\nfrom typer.testing import CliRunner\n"
        "assert CliRunner().invoke(genrec.cli.app, ['--help']).exit_code == 0",
    ],
)
def test_heavy_libraries_load_late(code: str) -> None:
    heavy = {"torch", "transformers", "peft", "sentence_transformers", "gguf", "datasets", "cornac"}
    assert not loaded(code) & heavy


def test_public_names() -> None:
    assert sorted(genrec.__all__) == [
        "Catalog", "Dataset", "GenrecError", "History", "Interaction", "Interactions", "Item",
        "LanguageModel", "Recommendation", "RecommendationList", "Recommender", "Settings",
        "__version__", "compare", "datasets", "evaluate",
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
        "import os, sys\nfrom genrec.cli import main\nsys.argv = ['genrec', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\nprint(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split()[-1] == (given or "PASSIVE")
