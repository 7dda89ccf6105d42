"""Commands import no library that they do not use, which is what makes them start fast."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.tiny_runs import saved

from genrec.cli import startup
from genrec.data.datasets import load

# Libraries that take long to import and that none of these commands needs.
NEVER = {
    "transformers", "sklearn", "pandas", "peft", "accelerate", "sentence_transformers", "datasets",
    "pyarrow.dataset", "scipy.stats", "scipy.optimize", "torch._dynamo", "torch.distributed.tensor",
    "sympy", "matplotlib", "huggingface_hub", "gguf", "faiss", "sqlalchemy",
}  # fmt: skip
MODEL = {"torch", "tokenizers", "scipy"}
DATA = {"numpy", "pyarrow", "jinja2"}

RUN = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from genrec.cli.main import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["genrec", *arguments]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            codes.append(end.code)
    print(arguments, codes[-1], err.getvalue()[:300], file=sys.stderr)
print(json.dumps([codes, sorted(sys.modules)]))
"""


@dataclass(frozen=True)
class Shop:
    data: str
    model: str
    run: str
    items: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    from genrec.training import trainer

    folder = tmp_path_factory.mktemp("startup")
    model = saved(folder)
    data = load("zh_mini")
    data.save(folder / "data")
    options: dict[str, Any] = {"max_targets": 4, "eval_users": 0, "dtype": "float32", "threads": 1}
    trainer.train(data, folder / "run", str(model), device="cpu", **options)
    items = folder / "items.txt"
    items.write_text("\n".join(item.item_id for item in list(data.catalog)[-3:]), encoding="utf-8")
    return Shop(str(folder / "data"), str(model), str(folder / "run"), str(items))


def run(commands: Sequence[Sequence[str]], expected: Sequence[int]) -> set[str]:
    """Run commands in one new process, check their exit codes, and return the imported modules."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    assert codes == list(expected), done.stderr
    return set(modules)


def test_help_imports_no_data_libraries() -> None:
    commands = [["--help"], ["--version"], ["recommend", "--help"], ["train", "--help-all"]]
    wrong = [["recommend", "--nothing"], ["recommend"]]
    modules = run([*commands, *wrong], [0, 0, 0, 0, 2, 2])
    assert not modules & (NEVER | MODEL | DATA)


def test_checks_import_no_model(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "unknown.txt").write_text("nothing", encoding="utf-8")
    user = load("zh_mini").interactions.user_ids[0]
    here = ["--model", shop.model, "--user", user]
    commands = [
        ["recommend", str(tmp_path), "--user", user],
        ["recommend", shop.data, "--model", shop.model, "--user", "nobody"],
        ["recommend", shop.data, *here, "--where", "nothing > 3"],
        ["recommend", shop.data, *here, "--template", "nothing"],
        ["recommend", shop.data, *here, "-k", "0"],
        ["rank", shop.data, *here, "--items", str(tmp_path / "unknown.txt")],
        ["score", shop.data, *here, "--items", str(tmp_path / "missing.txt")],
        ["explain", shop.data, *here, "--item", "nothing"],
        ["recommend", shop.data, "--run", shop.run, "--user", "nobody"],
        ["recommend", shop.data, "--model", str(tmp_path / "nothing"), "--user", user],
    ]
    modules = run(commands, [3, 6, 6, 4, 6, 6, 3, 6, 6, 5])
    assert not modules & (NEVER | MODEL)


def test_a_prompt_needs_no_weights(shop: Shop) -> None:
    data = load("zh_mini")
    user, title = data.interactions.user_ids[0], data.catalog[0].title
    options = [["--model", shop.model, "--json"], ["--run", shop.run]]
    commands = [
        ["prompt", shop.data, *option, *history]
        for option in options
        for history in (["--user", user], ["--history", f"bought: {title}"])
    ]
    modules = run(commands, [0] * 4)
    assert not modules & (NEVER | {"torch", "scipy"})


def test_similar_items_need_no_model(shop: Shop) -> None:
    item = load("zh_mini").catalog[0].item_id
    commands = [
        ["similar", shop.data, "--item", item, "--by", by, "--encoder", "ngrams", *more]
        for by in ("both", "prior", "titles")
        for more in ([], ["--json"])
    ]
    wrong = ["similar", shop.data, "--item", "nothing"]
    modules = run([*commands, wrong], [0] * 6 + [6])
    assert not modules & {"torch", "tokenizers", "transformers"}


@pytest.mark.parametrize("kind", ["model", "run"])
def test_the_second_list_needs_torch_alone(shop: Shop, kind: str) -> None:
    data = load("zh_mini")
    user, title = data.interactions.user_ids[0], data.catalog[0].title
    which = ["--model", shop.model] if kind == "model" else ["--run", shop.run]
    here = [shop.data, *which, "--prior", "collaborative", "--device", "cpu", "--threads", "1"]
    run([["recommend", *here, "--user", user]], [0])
    commands = [
        ["recommend", *here, "--user", user, "-k", "3"],
        ["recommend", *here, "--history", f"bought: {title}", "--json"],
        ["recommend", *here, "--history", "", "--explain"],
        ["rank", *here, "--user", user, "--items", shop.items],
        ["score", *here, "--user", user, "--items", shop.items],
    ]
    if kind == "model":  # this run was not trained to answer questions
        commands.append(["likes", shop.data, *which, "--user", user, "--items", shop.items])
    modules = run(commands, [0] * len(commands))
    assert "torch" in modules
    assert not modules & NEVER


def test_pandas_is_declined_only_for_arrow_s_first_array() -> None:
    code = (
        "from genrec.cli.startup import decline_pandas\ndecline_pandas()\n"
        "import sys\nassert 'pandas' not in sys.modules\n"
        "import pyarrow as pa\npa.array(['a']), pa.array([[1]])\n"
        "assert 'pandas' not in sys.modules\n"
        "frame = pa.table({'a': [1, 2]}).to_pandas()\n"
        "assert frame['a'].sum() == 3 and pa.array(frame['a']).to_pylist() == [1, 2]\n"
        "import pandas\ndecline_pandas()\nassert pa.Table.from_pandas(frame).num_rows == 2\n"
        "assert not [f for f in sys.meta_path if type(f).__module__.startswith('genrec')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert startup.__doc__
