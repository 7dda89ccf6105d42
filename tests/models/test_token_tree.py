from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import tiny
from support.reference import forward

from genrec.models.cached_tree import CachedTree
from genrec.models.logits import Body
from genrec.models.plain_tree import PlainTree
from genrec.models.prefix import Prefix
from genrec.models.token_tree import ROOT, TokenTree, below
from genrec.models.tree_checks import tree_obstacle

PROMPT = [5, 9, 11, 30, 7, 8]
LONG = [(7 * i + 3) % 300 for i in range(40)]  # longer than the sliding windows of 16
KINDS = (*tiny.KINDS, "mistral", "gemma3")


def made(kind: str, tree: str, *prompts: list[int]) -> tuple[Any, TokenTree]:
    model = tiny.language_model(kind).model
    body = Body(model)
    return model, (CachedTree if tree == "cached" else PlainTree)(body, prompts)


@pytest.mark.parametrize("prompt", [PROMPT, LONG])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tree_class", ["cached", "plain"])
def test_logits_equal_plain_passes(kind: str, tree_class: str, prompt: list[int]) -> None:
    model, tree = made(kind, tree_class, prompt)
    assert torch.allclose(tree.logits.double(), forward(model, prompt), atol=1e-4)
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
            assert torch.allclose(got.double(), forward(model, prompt + paths[handle]), atol=1e-4)
        frontier = handles[::2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tree_class", ["cached", "plain"])
def test_several_prompts_do_not_see_each_other(kind: str, tree_class: str) -> None:
    """Grow a tree on prompts of different lengths, and drop some of the prompts on the way."""
    prompts = [PROMPT, LONG, [3], LONG[:17], [4, 4]]
    model, tree = made(kind, tree_class, *prompts)
    for prompt, logits in zip(prompts, tree.root.logits(), strict=True):
        assert torch.allclose(logits.double(), forward(model, prompt), atol=1e-4)
    rng = np.random.default_rng(3)
    ends: list[tuple[int, int, list[int]]] = [(u, ROOT, []) for u in range(len(prompts))]
    for step in range(6):
        some = [
            e
            for e in ends
            if e[0] in ([0, 1, 2, 3, 4] if step < 2 else [1, 3] if step < 4 else [3])
        ]
        tree.keep(np.array([e[0] for e in some]))
        chosen = [some[i] for i in rng.permutation(len(some))[:5]]
        runs = [rng.integers(3, 300, size=rng.integers(1, 4)).tolist() for _ in chosen]
        every = bool(step % 2)
        handles, outputs = tree.grow(
            [c[0] for c in chosen], [c[1] for c in chosen], runs, every=every
        )
        logits = iter(outputs.logits().double())
        for (user, _, path), run, handle in zip(chosen, runs, handles.tolist(), strict=True):
            for n in range(1 if every else len(run), len(run) + 1):
                plain = forward(model, prompts[user] + path + run[:n])
                assert torch.allclose(next(logits), plain, atol=1e-4)
            ends.append((user, handle, path + run))


def test_a_dropped_prompt_cannot_be_grown() -> None:
    _, tree = made("llama", "cached", PROMPT, LONG, LONG[:9])
    tree.keep(np.array([1]))
    tree.grow([1], [ROOT], [[4]])
    with pytest.raises(ValueError, match="has dropped"):
        tree.grow([0], [ROOT], [[4]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_beginning_is_read_once(kind: str) -> None:
    model = tiny.language_model(kind).model
    body = Body(model)
    prompts = [[*LONG[:20], 4, 9], LONG[:20] + LONG, LONG[:21]]
    prefix = Prefix(body, LONG[:20])
    for _ in range(2):  # the prefix is not changed by what is read after it
        tree = CachedTree(body, prompts, prefix)
        handles, _ = tree.grow([0, 1, 2], [ROOT] * 3, [[7, 8], [9], [1]])
        _, outputs = tree.grow([2, 0], [handles[2], handles[0]], [[5], [6]])
        for prompt, logits in zip(prompts, tree.root.logits(), strict=True):
            assert torch.allclose(logits.double(), forward(model, prompt), atol=1e-4)
        for path, logits in zip(
            ([*prompts[2], 1, 5], [*prompts[0], 7, 8, 6]), outputs.logits(), strict=True
        ):
            assert torch.allclose(logits.double(), forward(model, path), atol=1e-4)


@pytest.mark.parametrize("tree_class", ["cached", "plain"])
def test_every_returns_logits_after_each_token(tree_class: str) -> None:
    model, tree = made("llama", tree_class, PROMPT)
    _, logits = tree.extend([ROOT, ROOT], [[40, 41], [42]], every=True)
    for got, path in zip(logits, ([40], [40, 41], [42]), strict=True):
        assert torch.allclose(got.double(), forward(model, PROMPT + path), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_single_logits_equal_full_logits(kind: str) -> None:
    _, tree = made(kind, "cached", PROMPT, LONG)
    outputs = tree.grow([0, 1, 0], [ROOT] * 3, [[4], [5], [6]])[1]
    full = outputs.logits().double().numpy()
    for size in (3, 200):  # few, and so many that a row's logits are made at once
        source = np.repeat([0, 2], size)
        token = np.tile(np.arange(size), 2)
        assert outputs.at(source, token) == pytest.approx(full[source, token], abs=1e-5)
    for temperature in (1.0, 2.5):
        norms = torch.logsumexp(torch.from_numpy(full) / temperature, -1).numpy()
        assert outputs.norms(temperature) == pytest.approx(norms, abs=1e-5)


def test_a_long_tree_outgrows_its_first_buffer() -> None:
    model, tree = made("qwen3", "cached", PROMPT)
    path: list[int] = []
    handle = ROOT
    for step in range(40):
        run = [(step * 13 + i) % 300 for i in range(9)]
        (handle,), logits = tree.extend([handle], [run])
        path += run
    assert torch.allclose(logits[0].double(), forward(model, PROMPT + path), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_models_take_the_fast_tree(kind: str) -> None:
    body = Body(tiny.language_model(kind).model)
    assert tree_obstacle(body) == ""
    assert body.head is not None


def test_a_head_that_scales_logits_is_not_divided_off() -> None:
    from transformers import AutoModelForCausalLM, CohereConfig

    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, logit_scale=0.25, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    body = Body(model)
    assert body.head is None
    tree = CachedTree(body, [PROMPT, PROMPT[:3]])
    _, outputs = tree.grow([1, 0], [ROOT, ROOT], [[4], [5]])
    for path, logits in zip(([*PROMPT[:3], 4], [*PROMPT, 5]), outputs.logits(), strict=True):
        assert torch.allclose(logits.double(), forward(model, path), atol=1e-4)


def test_a_recurrent_model_takes_the_slow_tree() -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    body = Body(model)
    assert tree_obstacle(body)
    tree = PlainTree(body, [PROMPT, PROMPT[:3]])
    _, outputs = tree.grow([1, 0], [ROOT, ROOT], [[4], [5, 6]])
    for path, logits in zip(([*PROMPT[:3], 4], [*PROMPT, 5, 6]), outputs.logits(), strict=True):
        assert torch.allclose(logits.double(), forward(model, path), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tree_class", ["cached", "plain"])
def test_runs_may_hang_below_runs_of_the_same_pass(kind: str, tree_class: str) -> None:
    model, tree = made(kind, tree_class, PROMPT, LONG)
    first, _ = tree.grow([0, 1], [ROOT, ROOT], [[7, 8], [9]])
    parents = [int(first[1]), ROOT, below(0), below(2), below(1), below(0)]
    runs = [[4, 5], [6], [7], [8, 9, 3], [5, 5], [3]]
    paths = [[9, 4, 5], [6], [9, 4, 5, 7], [9, 4, 5, 7, 8, 9, 3], [6, 5, 5], [9, 4, 5, 3]]
    users = [1, 0, 1, 1, 0, 1]
    handles, outputs = tree.grow(users, parents, runs)
    last, further = tree.grow(users, handles.tolist(), [[2]] * 6)
    assert len(set(zip(users, last.tolist(), strict=True))) == 6
    for n, (user, path) in enumerate(zip(users, paths, strict=True)):
        prompt = (PROMPT, LONG)[user]
        for logits, ids in ((outputs, path), (further, [*path, 2])):
            plain = forward(model, [*prompt, *ids])
            assert torch.allclose(logits.logits()[n].double(), plain, atol=1e-4)
