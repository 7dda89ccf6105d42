from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny
from support.reference import enumerated

from genrec.data.titles import TitleForm
from genrec.errors import ModelError
from genrec.models.base import Generated
from genrec.models.generation import Ending, beams, sample
from genrec.models.token_tree import TokenTree
from genrec.prompts.encoder import Encoder

KINDS = pytest.mark.parametrize("kind", tiny.KINDS)


def ending(kind: str, max_tokens: int, allowed: int | None = 2, **changes: Any) -> Ending:
    """Build the ending of titles; ban all but a few tokens, the line break and the end token."""
    tokenizer = tiny.tokenizer(kind)
    encoder = Encoder(tokenizer, TitleForm())
    kept = {*encoder.text("re mu")[:allowed], *encoder.terminator, tokenizer.eos_token_id}
    size = tiny.language_model(kind).model.config.vocab_size
    banned = encoder.control_ids if allowed is None else set(range(size)) - kept
    values: dict[str, Any] = {
        "decode": lambda ids: str(tokenizer.decode(list(ids))),
        "terminator": "\n",
        "eos": (tokenizer.eos_token_id,),
        "banned": tuple(sorted(banned)),
        "max_tokens": max_tokens,
    }
    return Ending(**{**values, **changes})


def prompt(kind: str) -> list[int]:
    return list(Encoder(tiny.tokenizer(kind), TitleForm()).text("bought: red mug\nbought:"))


def tree(kind: str, plain: bool = False) -> TokenTree:
    return tiny.language_model(kind, plain=plain).prefill(prompt(kind))


def comparable(texts: list[Generated]) -> list[tuple[str, bool, float]]:
    return [(g.text, g.finished, g.logprob) for g in texts]


def same(one: list[Generated], two: list[Generated]) -> None:
    assert [g.logprob for g in one] == pytest.approx([g.logprob for g in two], abs=1e-4)
    assert Counter((g.text, g.finished) for g in one) == Counter((g.text, g.finished) for g in two)


@KINDS
def test_wide_beams_are_all_texts(kind: str) -> None:
    for max_tokens in (1, 3):
        end = ending(kind, max_tokens)
        every = enumerated(tiny.language_model(kind).model, prompt(kind), end)
        assert sum(np.exp(g.logprob) for g in every) == pytest.approx(1.0, abs=1e-6)
        same(beams(tree(kind), end, n=64), every)


@KINDS
def test_wide_beams_of_one_token_are_the_vocabulary(kind: str) -> None:
    end = ending(kind, 1, allowed=None)
    every = enumerated(tiny.language_model(kind).model, prompt(kind), end)
    assert len(every) > 300
    same(beams(tree(kind), end, n=len(every)), every)
    best = beams(tree(kind), end, n=7)
    assert [g.logprob for g in best] == pytest.approx([g.logprob for g in every[:7]], abs=1e-4)


@KINDS
def test_samples_have_the_probability_of_plain_passes(kind: str) -> None:
    end = ending(kind, 4)
    every = enumerated(tiny.language_model(kind).model, prompt(kind), end)
    known = {(g.text, g.finished, round(g.logprob, 3)) for g in every}
    near = {(t, f, round(p + d, 3)) for t, f, p in known for d in (-0.001, 0.0, 0.001)}
    drawn = sample(tree(kind), end, n=300, seed=3)
    assert len(drawn) == 300
    assert {(g.text, g.finished, round(g.logprob, 3)) for g in drawn} <= near
    assert len({g.text for g in drawn}) > 3


def test_samples_come_as_often_as_they_are_probable() -> None:
    end = ending("llama", 1, allowed=None)
    drawn = sample(tree("llama"), end, n=5000)
    share = Counter(g.logprob for g in drawn)
    for logprob, count in share.most_common(5):
        expected = np.exp(logprob)
        assert count / 5000 == pytest.approx(expected, abs=5 * np.sqrt(expected / 5000))


def test_seeds_reproduce_and_temperatures_sharpen() -> None:
    end = ending("qwen3", 6, allowed=None)

    def drawn(**settings: Any) -> list[tuple[str, bool, float]]:
        return comparable(sample(tree("qwen3"), end, n=30, **settings))

    assert drawn(seed=5) == drawn(seed=5) != drawn(seed=6)
    greedy = {drawn(temperature=t)[0] for t in (1e-3, 1e-300, 5e-324)}
    assert len(greedy) == 1
    assert set(drawn(temperature=5e-324)) == greedy
    assert len(set(drawn(temperature=50.0))) > 25


@KINDS
def test_a_plain_tree_gives_the_same_texts(kind: str) -> None:
    end = ending(kind, 4, allowed=None)
    same(beams(tree(kind), end, n=6), beams(tree(kind, plain=True), end, n=6))
    same(sample(tree(kind), end, n=20), sample(tree(kind, plain=True), end, n=20))


@KINDS
def test_banned_ids_are_never_written(kind: str) -> None:
    written: set[int] = set()

    def decode(ids: Any) -> str:
        written.update(ids)
        return str(tiny.tokenizer(kind).decode(list(ids)))

    end = ending(kind, 8, allowed=None, decode=decode)
    control = set(end.banned) - set(end.eos)
    sample(tree(kind), end, n=60, temperature=9.0)
    beams(tree(kind), end, n=30)
    assert len(written) > 50
    assert not written & control
    some = tuple(sorted(written - set(end.eos))[::2])
    written.clear()
    sample(tree(kind), ending(kind, 8, allowed=None, decode=decode, banned=some), n=60)
    assert not written & set(some)


def test_the_end_and_the_terminator_end_a_text() -> None:
    words = ["</s>", "red", " mug", "\n", "x\ny", "."]
    end = Ending(lambda ids: "".join(words[i] for i in ids), "\n", (0,), (5,), 3)
    assert end.ended((1, 2)) is None
    assert end.ended((1, 0)) == "red"
    assert end.ended((0,)) == ""
    assert end.ended((1, 2, 3)) == "red mug"
    assert end.ended((1, 4)) == "redx"
    logprobs = end.logprobs(torch.zeros(2, 6))
    assert logprobs[:, 5].tolist() == [-torch.inf] * 2
    assert logprobs.exp().sum(-1).tolist() == pytest.approx([1.0, 1.0])
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(ModelError, match="not finite"):
            end.logprobs(torch.full((1, 6), bad))
