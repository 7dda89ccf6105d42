"""Search on tries that are made to go wrong, under a vocabulary of 131,072."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from genrec.decoding.filters import Filter, Filters
from genrec.decoding.search import score, search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options, Ranking
from genrec.models.cached_tree import CachedTree
from genrec.models.logits import Body

VOCABULARY = 131_072
END = VOCABULARY - 1
PROMPT = [5, 70_000, 9]


@functools.cache
def body(flat: bool = False) -> Body:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
        if flat:
            model.get_output_embeddings().weight.zero_()
    return Body(model.eval())


def wide() -> list[list[int]]:
    """A root with 10^5 children, some of which part again."""
    titles = [[n, END] for n in range(1, 100_001)]
    for n in range(1, 100_001, 500):
        titles[n - 1] = [n, 3, END]
        titles += [[n, 4, 4, END], [n, 4, 5, END]]
    return titles


def deep() -> list[list[int]]:
    """One path with a title's end at each of 193 places."""
    return [[7] * n + [END] for n in range(194)]


def tails() -> list[list[int]]:
    """Titles of 194 tokens that part at one place only, early or at the last token."""
    rng = np.random.default_rng(4)
    long = rng.integers(1, 1000, size=(40, 193)).tolist()
    same = [[*long[0][:192], n, END] for n in range(1, 30)]
    return [[*t, END] for t in long] + [s for s in same if s[192] != long[0][192]]


def duplicates() -> list[list[int]]:
    """Thousands of rows with few titles."""
    return [[1 + n % 3, 2, END] for n in range(5000)] + [[1, 3, END], [9, 9, END]]


TRIES = {"wide": wide, "deep": deep, "tails": tails, "duplicates": duplicates}


def ranked(
    titles: Sequence[Sequence[int]], k: int, flat: bool = False, **options: object
) -> tuple[Ranking, Ranking]:
    """The exact ranking of all titles, and the k best by search."""
    trie = TitleTrie(titles)
    (full,) = score(trie, CachedTree(body(flat), [PROMPT]))
    found = Options(**options)  # type: ignore[arg-type]
    (part,) = search(trie, CachedTree(body(flat), [PROMPT]), k, options=found)
    return full, part


def check(full: Ranking, part: Ranking, k: int) -> None:
    """What a certificate claims is so."""
    n = min(k, len(full.rows))
    truth = dict(zip(full.rows.tolist(), full.logprobs.tolist(), strict=True))
    assert len(part.rows) == n
    assert len(set(part.rows.tolist())) == n
    assert part.logprobs == pytest.approx([truth[r] for r in part.rows.tolist()], abs=1e-4)
    certain = part.certificate.certain_ranks
    assert part.logprobs[:certain] == pytest.approx(full.logprobs[:certain], abs=4e-4)
    if part.certificate.exact:
        assert certain == n


@pytest.mark.parametrize("name", TRIES)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_exact_search_on_odd_tries(name: str, k: int) -> None:
    for flat in (False, True):
        full, part = ranked(TRIES[name](), k, flat, search="exact")
        assert np.exp(full.logprobs).sum() == pytest.approx(1.0, abs=1e-5)
        assert part.certificate.exact
        check(full, part, k)
        assert part.certificate.tokens <= full.certificate.tokens


@pytest.mark.parametrize("name", TRIES)
@pytest.mark.parametrize(
    "options",
    [{"search": "beam", "beam_size": 2}, {"max_nodes": 1, "search": "exact"}, {"budget": 1}],
)
def test_certificates_on_odd_tries(name: str, options: dict[str, object]) -> None:
    for flat in (False, True):
        for k in (1, 10):
            check(*ranked(TRIES[name](), k, flat, **options), k)


def test_probabilities_of_a_deep_path_are_those_of_plain_passes() -> None:
    titles = deep()
    full, _ = ranked(titles, 1)
    with torch.inference_mode():
        logits = body().model(input_ids=torch.tensor([PROMPT + [7] * 193])).logits[0].double()
    value, expected = 0.0, {}
    for n in range(193):
        more, ends = torch.log_softmax(logits[len(PROMPT) - 1 + n, [7, END]], 0).tolist()
        expected[n] = value + ends
        value += more
    expected[193] = value
    got = dict(zip(full.rows.tolist(), full.logprobs.tolist(), strict=True))
    assert [got[n] for n in range(194)] == pytest.approx(
        [expected[n] for n in range(194)], abs=2e-3
    )


def test_a_filter_of_one_among_many() -> None:
    trie = TitleTrie(wide())
    for row in (0, 77_500, 100_010):
        allowed = Filters([Filter.allow(trie.positions_of(np.array([row])), trie.n_items)])
        tree = CachedTree(body(), [PROMPT])
        (found,) = search(trie, tree, 5, allowed=allowed, options=Options(search="exact"))
        assert found.rows.tolist() == [row]
        assert found.certificate.exact
        assert found.certificate.nodes <= 2
