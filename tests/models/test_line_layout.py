from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.config import LINE_NUMBERS
from genrec.models.line_layout import LineLayout

SHAPE = (2, 3, 5, 4)  # layers, heads, sizes of keys and values


def some(tokens: int, seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Keys and values of very different sizes, as some heads have them."""
    rng = torch.Generator().manual_seed(seed)
    sizes = torch.randint(-3, 3, (2, 3, tokens, 1), generator=rng).float().exp()
    return [
        (sizes * torch.randn(2, 3, tokens, size, generator=rng)).to(dtype) for size in SHAPE[2:]
    ]


@given(st.sampled_from(LINE_NUMBERS), st.integers(1, 9), st.integers(0, 99))
def test_errors_are_small(numbers: str, tokens: int, seed: int) -> None:
    layout, given_ = LineLayout(SHAPE, torch.float32, numbers), some(tokens, seed)
    packed = layout.pack(*given_)
    assert packed.dtype == torch.uint8
    assert len(packed) == tokens * layout.token_bytes
    for before, after in zip(given_, layout.unpack(packed), strict=True):
        error = (before - after).abs()
        largest = before.abs().amax(dim=-1, keepdim=True)
        if numbers == "float32":
            assert torch.equal(before, after)
        elif numbers == "bfloat16":
            assert (error <= before.abs() / 256 * 1.001).all()
        else:
            assert (error <= largest / 254 * 1.001).all()
            assert error.max() > 0


def test_sizes() -> None:
    """SmolLM2-135M has 30 layers with 3 heads of 64 numbers."""
    shape = (30, 3, 64, 64)
    sizes = {n: LineLayout(shape, torch.float32, n).token_bytes for n in LINE_NUMBERS}
    assert sizes == {"float32": 46080, "bfloat16": 23040, "int8": 12240}
    assert LineLayout(shape, torch.bfloat16).token_bytes == 23040  # as the model computes them


@pytest.mark.parametrize("numbers", LINE_NUMBERS)
def test_zeros_stay_zeros(numbers: str) -> None:
    layout = LineLayout(SHAPE, torch.float32, numbers)
    zeros = [torch.zeros(2, 3, 4, size) for size in SHAPE[2:]]
    assert all(not part.any() for part in layout.unpack(layout.pack(*zeros)))


def test_the_bytes_are_a_copy() -> None:
    layout, (keys, values) = LineLayout(SHAPE, torch.float32), some(3, 0)
    packed = layout.pack(keys, values)
    expected = keys.clone()
    keys.zero_()
    assert torch.equal(layout.unpack(packed)[0], expected)


def test_other_data_types_come_back() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        given_ = some(3, 0, dtype)
        for numbers in LINE_NUMBERS:
            layout = LineLayout(SHAPE, dtype, numbers)
            for before, after in zip(given_, layout.unpack(layout.pack(*given_)), strict=True):
                assert after.dtype == dtype
                assert (before - after).abs().max() <= before.abs().max() / 60
