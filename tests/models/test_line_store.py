from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.models.line_store import LineStore, line_key


def line(tokens: int) -> torch.Tensor:
    """A line of 8 bytes per token."""
    return torch.zeros(8 * tokens, dtype=torch.uint8)


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 4)), max_size=40),
)
def test_it_keeps_what_was_used_last(budget: int, steps: list[tuple[bool, int, int]]) -> None:
    """Compare with a plain list, most recently used last."""
    store = LineStore(budget)
    kept: list[tuple[int, torch.Tensor]] = []
    for puts, name, tokens in steps:
        key = line_key("m", [1], [name])
        found = [one for n, one in kept if n == name]
        if puts:
            new = line(tokens)
            store.put(key, new)
            if new.nbytes <= budget:
                kept = [(n, one) for n, one in kept if n != name] + [(name, new)]
        else:
            assert store.get(key) is (found[0] if found else None)
            if found:
                kept = [(n, one) for n, one in kept if n != name] + [(name, found[0])]
        while sum(one.nbytes for _, one in kept) > budget:
            del kept[0]
        use = store.use()
        assert (use.lines, use.bytes) == (len(kept), sum(one.nbytes for _, one in kept))
        assert use.bytes <= budget
    use = store.use()
    asked = sum(not puts for puts, _, _ in steps)
    assert use.hits + use.misses == asked
    assert 0 <= use.hit_rate <= 1


def test_a_smaller_budget_drops_lines_at_once() -> None:
    store = LineStore(1000)
    for n in range(5):
        store.put(line_key("m", [1], [n]), line(2))
    store.budget = 40
    use = store.use()
    assert (use.lines, use.bytes, use.dropped) == (2, 32, 3)
    assert store.get(line_key("m", [1], [4])) is not None
    store.clear()
    assert (store.use().lines, store.use().bytes) == (0, 0)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_the_process_grows_by_the_budget() -> None:
    """Also after many lines have come and gone."""

    def resident() -> int:
        pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    budget, new = 64 << 20, torch.ones(200_000, dtype=torch.uint8)
    store = LineStore(budget)
    before = resident()
    for n in range(1200):
        store.put(line_key("m", [1], [n]), new[: 60_000 + 12_240 * (n * 7 % 11)])
    assert store.use().dropped > 400
    assert 0.9 * budget < resident() - before < 1.05 * budget


def test_keys_tell_models_heads_and_blocks_apart() -> None:
    keys = [
        line_key("a", [1, 2], [3]),
        line_key("b", [1, 2], [3]),
        line_key("a", [1], [2, 3]),
        line_key("a", [1, 2, 3]),
        line_key("a", [1, 2], [4]),
        line_key("a", [1, 2], [3, 3]),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == line_key("a", (1, 2), (3,))
