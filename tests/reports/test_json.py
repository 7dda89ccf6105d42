"""All JSON that the commands print consists of plain values and reads back as it was."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.commands import Run
from support.reviewed import reviewed_shop
from typer.main import get_command

import genrec
from genrec import Recommender
from genrec.cli.main import app
from genrec.data.datasets import load
from genrec.json_text import to_json
from genrec.reports import console
from genrec.runs import shipped_run

SOURCE = Path(genrec.__file__).parent / "data" / "samples" / "zh_mini"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip
NUMPY = [
    np.bool_(False), np.int64(1), np.float64(1.0), np.float32(1.0), np.str_("a"), np.array([1.0]),
]  # fmt: skip


@given(PLAIN, st.booleans())
def test_plain_values_read_back_as_they_were(value: Any, escape: bool) -> None:
    text = to_json(value, escape=escape)
    assert json.loads(text) == value
    assert not escape or text.isascii()


@given(PLAIN, st.sampled_from(NUMPY), st.sampled_from("abc"))
def test_a_numpy_value_is_rejected_wherever_it_is(plain: Any, bad: Any, key: str) -> None:
    for value, where in (
        (bad, "the value"),
        ([plain, {key: [bad]}], f"the value[1]['{key}'][0]"),
        ({"x": plain, key: (plain, bad)}, f"the value['{key}'][1]"),
    ):
        with pytest.raises(TypeError) as error:
            to_json(value)
        assert str(error.value).startswith(f"{where} has the type numpy.")


@pytest.mark.parametrize(
    ("value", "problem", "message"),
    [
        ({"a": float("nan")}, ValueError, "the value['a'] is nan."),
        ([-float("inf")], ValueError, "the value[0] is -inf."),
        ({np.str_("a"): 1}, TypeError, "A key of the value has the type numpy.str_."),
        ({"a": {1: 2}}, TypeError, "A key of the value['a'] has the type int."),
        ([Path("x")], TypeError, "the value[0] has the type pathlib."),
        ({"a": {1, 2}}, TypeError, "the value['a'] has the type set."),
    ],
)
def test_what_json_cannot_hold_is_rejected(
    value: Any, problem: type[Exception], message: str
) -> None:
    with pytest.raises(problem) as error:
        to_json(value)
    assert str(error.value).startswith(message)


@functools.cache
def recommender(**settings: Any) -> Recommender:
    return Recommender(load("zh_mini"), tiny.language_model(), encoder="none", **settings)


@given(
    settings=st.sampled_from(
        [
            {"prior": "none"},
            {"prior": "popularity", "fusion": "score", "exclude_seen": False},
            {"search": "beam"},
        ]
    ),
    query=st.fixed_dictionaries(
        {
            "k": st.sampled_from([1, 3, 10, np.int64(4)]),
            # Thresholds that all, some or none of the items reach.
            "min_probability": st.sampled_from([0.0, 1e-3, 0.02, 0.2, 1.0, np.float64(0.01)]),
        },
        optional={
            "per_title": st.sampled_from([1, np.int64(2)]),
            "caps": st.sampled_from([{"category": 1}, {"category": np.int64(2), "topic": 2}]),
            "diversity": st.sampled_from([0.3, np.float32(1.0)]),
            "where": st.sampled_from(["category == '商品'", "category != '商品'"]),
            "boosts": st.sampled_from(
                [{"category == '商品'": np.float64(2.0)}, {"title != 'x'": 1}]
            ),
            "pin": st.just(True),
            "per_group": st.sampled_from([None, np.int64(1)]),
            "allow_last_basket": st.booleans(),
            "at": st.sampled_from(["any", np.float64(1e9), "2025-12-24"]),
        },
    ),
    events=st.sampled_from([0, 4]),
)
def test_every_list_is_plain_whatever_was_asked(
    settings: dict[str, Any], query: dict[str, Any], events: int
) -> None:
    ours = recommender(**settings)
    if "pin" in query:
        query = {**query, "pin": [ours.catalog[2].item_id, ours.catalog[0].item_id]}
    answer = ours.recommend(ours.history("u01").latest(events) if events else "", **query)
    value = answer.to_dict()
    assert json.loads(to_json(value)) == as_read(value)


def as_read(value: Any) -> Any:
    """Return a value as it reads back from JSON, with lists in place of tuples."""
    if isinstance(value, dict):
        return {key: as_read(inner) for key, inner in value.items()}
    return [as_read(inner) for inner in value] if isinstance(value, list | tuple) else value


# A few runs of every command that has --json. The words in braces stand for folders.
COMMANDS = {
    "demo": ["--language zh --model {model} --users 2 --run none"],
    "doctor": ["--run online_retail_demo"],
    "recommend": [
        "{data} --user u01 --model {model}",
        "{data} --user u01 --model {model} --min-probability 0.5",
        "{data} --user u01 --model {model} -k 2 --explain --evidence fast",
        "{data} --history x --model {model} --decoder match",
        "{data} --history x --model {model} --per-title 1 --diversity 0.5",
        '{data} --history x --model {model} --pin g002 --boost title!="x":2 --at 2025-12-24',
    ],
    "chat": ["{data} --user u01 --model {model} --encoder none"],
    "explain": [
        "{data} --user u01 --item g001 --model {model}",
        "{data} --history x --item g001 --model {model} --prior none",
    ],
    "rank": ["{data} --history x --model {model} --items {out}/items.txt"],
    "score": ["{data} --user u01 --model {model} --prior none"],
    "similar": [
        "{data} --item g001 --encoder none --by prior",
        "{data} --item g001 --item g002 --encoder ngrams -k 3",
    ],
    "likes": ["{data} --user u01 --model {model} --items {out}/items.txt"],
    "prompt": ["{data} --user u01 --model {model}"],
    "profile": ["{data} --user u01 --model {model}", "{data} --history x --no-model"],
    "prepare": [
        "--items {source}/items.csv --interactions {source}/interactions.csv --out {out}/data",
        "--items {source}/items.csv --interactions {source}/interactions.csv --dry-run",
    ],
    "audit": ["{data}"],
    "erase": ["{small} --user v"],
    "federate": ["{shipped} {shipped} --out {out}/mean"],
    "index": ["{small} --encoder mine"],
    "sentiment": ["{reviewed} --like-threshold 4"],
    "batch": ["{small} --model {model} -k 1 --out {out}/lists"],
    "warm": ["{small} --model {model} --line-numbers int8"],
    "evaluate": [
        "{data} --model {model} --users 3 --against popular,markov,prior",
        "{data} --no-model --protocol candidates-20 --users 3",
        "{data} --model {model} --users 1 --explanations --encoder ngrams",
    ],
    "fit": ["{data} --no-model --minutes 1"],
    "search": [
        "{data} --space {out}/space.yaml --config {out}/few.yaml --out {out}/search --model {model} --trials 1"
    ],
    "tune": ["{data} --model {model} --users 4 --out {out}/tuned.json"],
    "train": [
        "{data} --model {model} --out {out}/run --max-targets 8 --eval-users 2 --lora-rank 2"
    ],
}


def commands_with_json() -> set[str]:
    commands = get_command(app).commands.items()  # type: ignore[attr-defined]
    return {n for n, c in commands if any("--json" in p.opts for p in c.params)}


def test_every_command_with_json_is_among_the_commands() -> None:
    assert commands_with_json() == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "arguments"), [(c, a) for c, runs in COMMANDS.items() for a in runs]
)
def test_the_json_of_a_command_reads_back_as_it_was(
    run: Run,
    shop: Path,
    data: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: str,
) -> None:
    (tmp_path / "items.txt").write_text("g001\ng002\n", encoding="utf-8")
    (tmp_path / "space.yaml").write_text("learning_rate: [0.001]\n", encoding="utf-8")
    (tmp_path / "few.yaml").write_text("max_targets: 4\neval_users: 2\n", encoding="utf-8")
    printed: list[Any] = []

    def print_json(
        value: Any, *, line: bool = False, real: Callable[..., None] = console.print_json
    ) -> None:
        printed.append(value)
        real(value, line=line)

    monkeypatch.setattr("sys.stdin", io.StringIO("two things\n"))

    monkeypatch.setattr(console, "print_json", print_json)
    monkeypatch.setattr(
        "genrec.matching.matcher.load_embedder", lambda n, log: tiny.LatinEmbedder(n)
    )
    if "{reviewed}" in arguments:
        reviewed_shop().save(tmp_path / "reviewed")
    folders = {
        "reviewed": tmp_path / "reviewed",
        "data": shop,
        "small": data,
        "model": model,
        "out": tmp_path,
        "source": SOURCE,
        "shipped": shipped_run("online_retail_demo"),
    }
    given = [word.format(**folders) for word in arguments.split()]
    code, out, err = run(command, *given, "--json")
    assert code == 0, err
    assert json.loads(out) == as_read(printed[0])
