"""Prompts of which the beginning is known are read as whole prompts are."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from genrec.models.prompt_memory import PromptMemory
from genrec.models.token_tree import ROOT

KINDS = ("llama", "qwen2", "gemma", "neox", "gpt2", "own")
USERS = ("anna", "ben", None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama")
    return functools.cache(lambda kind: tiny.own_model(kind, folder))


IDS = st.lists(st.integers(3, 299), min_size=1, max_size=30)


@given(st.sampled_from(KINDS), st.data())
def test_remembered_prompts_equal_whole_ones(made: Any, kind: str, data: st.DataObject) -> None:
    """Prompts grow, shrink and change, alone and in batches, with room for all or for some."""
    model = made(kind)
    assert model.remembers
    model.memory = PromptMemory(data.draw(st.sampled_from([0, 20_000, 1 << 24])))
    last: dict[Any, list[int]] = {}
    for _ in range(3):
        prompts, owners = [], []
        for owner in data.draw(st.lists(st.sampled_from(USERS), min_size=1, max_size=3)):
            start = last.get(owner, [])
            start = start[: data.draw(st.integers(len(start) // 2, len(start)))]
            prompts.append([*start, *data.draw(IDS)])
            owners.append(owner)
            last[owner] = prompts[-1]
        tree, known = model.prefill_remembered(prompts, owners)
        whole = model.prefill_many(prompts)
        users = list(range(len(prompts)))
        together = data.draw(
            st.booleans()
        )  # the end of the prompts in one pass with the first runs
        if not together:
            assert torch.allclose(tree.root.logits(), whole.root.logits(), atol=1e-4, rtol=1e-4)
        assert tree.unread == together
        runs = [[11, 12], [13]] * len(prompts)
        of = [u for u in users for _ in range(2)]
        found = [t.grow(of, [ROOT] * len(of), runs) for t in (tree, whole)]
        more = [
            t.grow(of, ends.tolist(), runs)
            for t, (ends, _) in zip((tree, whole), found, strict=True)
        ]
        for (_, ours), (_, theirs) in (found, more):
            assert torch.allclose(ours.logits(), theirs.logits(), atol=1e-4, rtol=1e-4)
        assert torch.allclose(tree.root.logits(), whole.root.logits(), atol=1e-4, rtol=1e-4)
        assert all(n < len(p) for n, p in zip(known, prompts, strict=True))
        assert all(n == 0 for n, owner in zip(known, owners, strict=True) if owner is None)
        use = model.memory.use()
        assert use.bytes <= use.budget


def read(model: Any, prompts: list[list[int]], owners: list[str | None]) -> tuple[int, ...]:
    """Let a model read prompts, and return how many of their tokens were known."""
    tree, known = model.prefill_remembered(prompts, owners)
    assert len(tree.root) == len(prompts)
    return tuple(known)


def test_only_what_was_appended_is_read(made: Any) -> None:
    model = made("llama")
    model.memory = PromptMemory(1 << 24)
    first = list(range(3, 60))
    assert read(model, [first], ["anna"]) == (0,)
    assert read(model, [[*first, 7, 8]], ["anna"]) == (len(first),)
    assert read(model, [[*first, 7, 8]], ["anna"]) == (len(first) + 1,)
    assert read(model, [[*first[:40], 9]], ["anna"]) == (40,)
    assert read(model, [[9, *first]], ["anna"]) == (0,)
    use = model.memory.use()
    assert use.prompts == 1
    assert (use.found, use.read) == (len(first) * 2 + 41, len(first) * 2 + 4 + 1)


def test_a_prompt_serves_only_its_owner(made: Any) -> None:
    model = made("llama")
    model.memory = PromptMemory(1 << 24)
    ids = list(range(3, 60))
    read(model, [ids, ids], ["anna", None])
    for other in ("ben", "anna/", "", None):
        assert read(model, [ids], [other]) == (0,)
    assert read(model, [ids], ["anna"]) == (len(ids) - 1,)
    model.memory.forget("anna")
    assert read(model, [ids], ["anna"]) == (0,)
    assert read(model, [ids], ["anna"]) == (0,)  # it stays forgotten
    model.forget_lines()  # as after a change of the weights
    assert model.memory.use().prompts == 0


def test_the_least_recently_used_prompts_are_dropped(made: Any) -> None:
    model = made("llama")
    ids = list(range(3, 60))
    model.memory = PromptMemory(1 << 24)
    read(model, [ids], ["anna"])
    size = model.memory.use().bytes
    assert size == len(ids) * 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    model.memory = PromptMemory(2 * size)
    for owner in ("anna", "ben", "anna", "cem"):
        read(model, [ids], [owner])
    assert model.memory.use().bytes == 2 * size
    assert read(model, [ids], ["ben"]) == (0,)
    assert read(model, [ids], ["cem"]) == (len(ids) - 1,)
    model.memory.budget = size
    assert (model.memory.use().prompts, model.memory.use().bytes) == (1, size)
    model.memory.budget = size - 1
    read(model, [ids], ["anna"])
    assert model.memory.use().prompts == 0


def test_models_with_other_attention_read_whole_prompts() -> None:
    model = tiny.language_model("mistral")
    limited = any(window is not None for window in model.body.windows.values())
    assert model.remembers == (not limited)
    plain = tiny.language_model("llama", plain=True)
    assert not plain.remembers
    tree, known = plain.prefill_remembered([[3, 4, 5]], ["anna"])
    assert known == (0,)
    assert torch.allclose(tree.root.logits(), plain.prefill([3, 4, 5]).root.logits())
