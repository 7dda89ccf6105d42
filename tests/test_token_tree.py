from __future__ import annotations

import pytest
import tiny
import torch
from reference import forward

from genrec.token_tree import ROOT, CachedTree, PlainTree, tree_obstacle

PROMPT = [5, 9, 11, 30, 7, 8]


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("tree_class", [CachedTree, PlainTree])
def test_logits_equal_plain_passes(
    kind: str, tree_class: type[CachedTree] | type[PlainTree]
) -> None:
    model = tiny.language_model(kind).model
    tree = tree_class(model, PROMPT)
    assert torch.allclose(tree.logits.double(), forward(model, PROMPT), atol=1e-4)
    paths: dict[int, list[int]] = {ROOT: []}
    frontier = [ROOT]
    for step in range(3):
        parents, runs = [], []
        for place, parent in enumerate(frontier):
            for child in range(2):
                parents.append(parent)
                runs.append([40 + 7 * step + child, 50 + place, 60][: 1 + (place + child) % 3])
        handles, logits = tree.extend(parents, runs)
        for handle, parent, run, got in zip(handles, parents, runs, logits, strict=True):
            paths[handle] = paths[parent] + run
            assert torch.allclose(got.double(), forward(model, PROMPT + paths[handle]), atol=1e-4)
        frontier = handles[::2]


@pytest.mark.parametrize("tree_class", [CachedTree, PlainTree])
def test_every_gives_logits_after_each_token(
    tree_class: type[CachedTree] | type[PlainTree],
) -> None:
    model = tiny.language_model("llama").model
    tree = tree_class(model, PROMPT)
    _, logits = tree.extend([ROOT, ROOT], [[40, 41], [42]], every=True)
    for got, path in zip(logits, ([40], [40, 41], [42]), strict=True):
        assert torch.allclose(got.double(), forward(model, PROMPT + path), atol=1e-4)


def test_a_long_tree_outgrows_its_first_buffer() -> None:
    model = tiny.language_model("qwen3").model
    tree = CachedTree(model, PROMPT)
    path: list[int] = []
    handle = ROOT
    for step in range(40):
        run = [(step * 13 + i) % 300 for i in range(9)]
        (handle,), logits = tree.extend([handle], [run])
        path += run
    assert torch.allclose(logits[0].double(), forward(model, PROMPT + path), atol=1e-4)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_full_attention_models_take_the_fast_tree(kind: str) -> None:
    assert tree_obstacle(tiny.language_model(kind).model) == ""


def test_a_sliding_window_takes_the_slow_tree() -> None:
    model = tiny.language_model("mistral")
    assert "sliding" in model.obstacle
    assert isinstance(model.prefill(PROMPT), PlainTree)
