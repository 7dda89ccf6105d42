from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny
from support.amount import EXAMPLES
from support.block_attention import forward_blocks
from support.reference import forward

from genrec.errors import ModelError, SettingsError
from genrec.models import block_reader
from genrec.models.block_prompt import BlockPrompt
from genrec.models.language_model import LanguageModel
from genrec.models.line_files import LineOptions
from genrec.models.line_store import LineStore
from genrec.models.rotary import find_rotary
from genrec.models.token_tree import ROOT, below

KINDS = ("llama", "qwen2", "qwen3", "gemma", "neox", "own")
HEADS = ((5, 9, 11), tuple(range(20, 31)), (7,))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama")
    return functools.cache(lambda kind: tiny.own_model(kind, folder))


def reference(kind: str) -> Any:
    """The model for masked passes, by transformers."""
    return tiny.language_model("llama" if kind == "own" else kind).model


def divided(
    head: tuple[int, ...], blocks: list[tuple[int, ...]], rest: tuple[int, ...]
) -> BlockPrompt:
    stops = np.cumsum([len(head), *map(len, blocks)])[1:].tolist()
    ids = (*head, *(i for b in blocks for i in b), *rest)
    return BlockPrompt(ids, len(head), tuple(stops), (True,) * (len(blocks) + 1))


LINES = st.lists(st.integers(3, 299), min_size=1, max_size=6).map(tuple)
LINES_OF_FEW = st.sampled_from([(40, 41, 42), (40, 41), (50,), (60, 61, 62, 63, 64)])
PROMPTS = st.builds(
    divided,
    st.sampled_from(HEADS),
    st.lists(LINES_OF_FEW | LINES, max_size=6),  # none, one, repeated lines, in any order
    LINES,
)


@given(st.sampled_from(KINDS), st.lists(PROMPTS, min_size=1, max_size=4), st.data())
def test_gathered_blocks_equal_one_masked_pass(
    made: Any, kind: str, prompts: list[BlockPrompt], data: st.DataObject
) -> None:
    """Also with a store that keeps everything, something or nothing from call to call."""
    model, plain = made(kind), reference(kind)
    model.lines.budget = data.draw(st.sampled_from([0, 4000, 1 << 20]))
    tree = model.read_blocks(prompts).tree
    assert tree.unread
    if data.draw(st.booleans()):  # otherwise in one pass with the first runs
        assert len(tree.root) == len(prompts)
    user = data.draw(st.lists(st.integers(0, len(prompts) - 1), min_size=1, max_size=3))
    runs = [[5, 6, 7][: 1 + n] for n in range(len(user))]
    handles, outputs = tree.grow(user, [ROOT] * len(user), runs)
    for prompt, logits in zip(prompts, tree.root.logits(), strict=True):
        assert torch.allclose(logits.double(), forward_blocks(plain, prompt), atol=1e-4)
    tree.keep(np.unique(user))
    for one, run, logits in zip(user, runs, outputs.logits(), strict=True):
        expected = forward_blocks(plain, prompts[one], run)
        assert torch.allclose(logits.double(), expected, atol=1e-4)
    _, outputs = tree.grow([user[0]] * 2, [int(handles[0]), below(0)], [[8], [9, 3]])
    expected = forward_blocks(plain, prompts[user[0]], [*runs[0], 8, 9, 3])
    assert torch.allclose(outputs.logits()[1].double(), expected, atol=1e-4)


@settings(max_examples=EXAMPLES // 5 or 1)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(["float32", "bfloat16", "int8"]),
    st.lists(PROMPTS, min_size=1, max_size=3),
    st.data(),
)
def test_lines_come_back_from_files(
    made: Any, tmp_path_factory: Any, kind: str, numbers: str, prompts: list[BlockPrompt],
    data: st.DataObject,
) -> None:  # fmt: skip
    """Whatever is in memory, in files or nowhere, the logits are the same."""
    model, plain = made(kind), reference(kind)
    folder = tmp_path_factory.mktemp("lines")
    first = torch.empty(0)
    for step in range(3):
        memory, disk = data.draw(st.sampled_from([0, 4000, 1 << 20])), 1 << 20
        options = LineOptions(numbers, memory, folder, disk)
        if step:
            model.lines.flush()
            model.lines.clear()
        logits = model.read_blocks(prompts, options).tree.root.logits()
        first = first if step else logits
        assert torch.allclose(logits, first, atol=1e-5)
    truth = torch.stack([forward_blocks(plain, p) for p in prompts])
    tolerance = {"float32": 1e-4, "bfloat16": 0.02, "int8": 0.02}[numbers]
    assert torch.allclose(first.double(), truth, atol=tolerance)
    wanted = {b for p in prompts for b in p.blocks}
    files = model.lines.use().files
    assert files.lines >= len(wanted)
    model.lines.configure(LineOptions(memory=1 << 20), "")


def test_smaller_numbers_change_little_but_something(made: Any) -> None:
    model = made("llama")
    prompt = divided(HEADS[0], [(40, 41, 42), (50, 51), tuple(range(60, 90))], (60,))
    exact, half, quarter = (
        model.read_blocks([prompt], LineOptions(numbers)).tree.logits
        for numbers in ("float32", "bfloat16", "int8")
    )
    assert 0 < (half - exact).abs().max() < 0.02
    assert 0 < (quarter - exact).abs().max() < 0.02
    again = model.read_blocks([prompt], LineOptions("int8"))
    assert again.found == (3,)
    assert torch.equal(again.tree.logits, quarter)


def test_text_of_users_is_not_written(made: Any, tmp_path: Path) -> None:
    model = made("llama")
    whole = divided(HEADS[0], [(40, 41), (42,), (43,)], (60,))
    one = BlockPrompt(whole.ids, whole.head, whole.stops, (True, True, False, True))
    model.read_blocks([one], LineOptions(memory=0, folder=tmp_path, disk=1 << 20))
    model.lines.flush()
    assert model.count_stored(one, LineOptions(folder=tmp_path)) == (2, 3)
    model.lines.configure(LineOptions(memory=1 << 20), "")


@pytest.mark.parametrize("kind", KINDS)
def test_without_blocks_it_is_ordinary_attention(made: Any, kind: str) -> None:
    ids = tuple(range(30, 50))
    for head in (0, 4):
        (logits,) = made(kind).read_blocks([BlockPrompt(ids, head)]).tree.root.logits()
        assert torch.allclose(logits.double(), forward(reference(kind), ids), atol=1e-4)


def test_blocks_differ_from_ordinary_attention(made: Any) -> None:
    """Else the tests above could not fail."""
    prompt = divided(HEADS[0], [(40, 41, 42), (50, 51)], (60,))
    plain = reference("llama")
    assert not torch.allclose(forward_blocks(plain, prompt), forward(plain, prompt.ids), atol=1e-2)
    swapped = divided(HEADS[0], [(50, 51), (40, 41, 42)], (60,))
    assert not torch.allclose(
        forward_blocks(plain, prompt), forward_blocks(plain, swapped), atol=1e-2
    )
    assert made("llama").read_blocks([prompt]).tokens == 3 + 5 + 1


def test_a_line_is_read_once(made: Any) -> None:
    model = made("llama")
    model.lines.clear()
    model.lines.budget = 1 << 20
    first = model.read_blocks([divided(HEADS[0], [(40, 41), (42,), (40, 41)], (60,))])
    assert (first.found, first.read, first.tokens) == ((1,), (2,), 3 + 3 + 1)
    second = model.read_blocks([divided(HEADS[0], [(42,), (43, 44)], (61, 62))])
    assert (second.found, second.read, second.tokens) == ((1,), (1,), 2 + 2)
    other = model.read_blocks([divided(HEADS[1], [(42,)], (61,))])  # after another head
    assert (other.found, other.read, other.tokens) == ((0,), (1,), 11 + 1 + 1)
    assert model.lines.use().lines == 6  # four lines and two heads


def test_text_of_users_is_not_stored(made: Any) -> None:
    model = made("llama")
    model.lines.clear()
    model.lines.budget = 1 << 20
    whole = divided(HEADS[0], [(40, 41), (42,), (43,)], (60,))
    one = BlockPrompt(whole.ids, whole.head, whole.stops, (True, True, False, True))
    expected = forward_blocks(reference("llama"), whole)
    for read in ((3,), (1,), (1,)):
        result = model.read_blocks([one])
        assert result.read == read
        assert torch.allclose(result.tree.logits.double(), expected, atol=1e-4)
    assert model.lines.use().lines == 3
    model.lines.clear()
    in_head = BlockPrompt(whole.ids, whole.head, whole.stops, (False, True, True, True))
    for _ in range(2):
        result = model.read_blocks([in_head, one])
        assert torch.allclose(result.tree.logits.double(), expected, atol=1e-4)
        assert model.lines.use().lines == 0


def test_long_histories_take_several_passes(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("qwen3")
    model.lines.clear()
    monkeypatch.setattr(block_reader, "_PASS", 7)
    blocks = [tuple(range(30 + n, 31 + n + n % 9)) for n in range(20)]
    prompt = divided(HEADS[0], blocks, (60, 61))
    result = model.read_blocks([prompt])
    expected = forward_blocks(reference("qwen3"), prompt)
    assert torch.allclose(result.tree.logits.double(), expected, atol=1e-4)


def test_threads_share_a_small_store(made: Any) -> None:
    model = made("llama")
    model.lines.clear()
    rng = np.random.default_rng(0)
    words = [tuple(rng.integers(3, 299, size=3).tolist()) for _ in range(8)]
    prompts = [
        divided(HEADS[0], [words[i] for i in rng.integers(0, 8, size=5)], (60, 61))
        for _ in range(12)
    ]
    expected = [forward_blocks(reference("llama"), p) for p in prompts]
    model.read_blocks(prompts[:1])
    model.lines.budget = 3 * 2 * 2 * 2 * 3 * 8 * 4  # three lines of three tokens
    failed: list[object] = []

    def work(start: int) -> None:
        for step in range(12):
            i = (start + step) % 12
            logits = model.read_blocks([prompts[i]]).tree.logits.double()
            if not torch.allclose(logits, expected[i], atol=1e-4):
                failed.append(i)

    threads = [threading.Thread(target=work, args=(3 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    use = model.lines.use()
    assert not failed
    assert use.bytes <= use.budget
    assert use.dropped


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gpt2", "no rotary position embeddings"),
        ("mistral", "full attention .sliding_attention"),
        ("gemma3", "full attention .sliding_attention"),
    ],
)
def test_other_models_say_why_they_cannot(made: Any, kind: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=f"by_event.*does not work with tiny-{kind}.*{reason}"):
        made(kind).read_blocks([divided(HEADS[0], [(4,)], (5,))])


def test_plain_trees_and_long_prompts_are_refused(made: Any) -> None:
    prompt = divided(HEADS[0], [(4,)], (5,))
    with pytest.raises(SettingsError, match="cannot use the token tree"):
        tiny.language_model("llama", plain=True).read_blocks([prompt])
    long = divided(HEADS[0], [tuple(range(3, 280))] * 8, (5,))
    with pytest.raises(ModelError, match="lower max_prompt_tokens"):
        made("llama").read_blocks([long])


@pytest.mark.parametrize("scaling", ["linear", "llama3", "yarn", "dynamic"])
def test_scaled_embeddings_are_turned_or_refused(scaling: str) -> None:
    from transformers import AutoModelForCausalLM

    words = tiny.tokenizer("llama")
    config = tiny.config("llama", len(words))
    config.rope_parameters = {
        "rope_type": scaling, "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 512,
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    made = LanguageModel(model, words)
    if scaling == "dynamic":
        assert "depend on the prompt's length" in str(find_rotary(made.body))
        return
    prompt = divided(HEADS[0], [(40, 41, 42), (50, 51)], (60,))
    logits = made.read_blocks([prompt]).tree.logits.double()
    assert torch.allclose(logits, forward_blocks(model, prompt), atol=1e-4)


def test_keys_that_are_turned_otherwise_are_refused() -> None:
    """Cohere turns pairs of neighbors, and SmolLM3 does not turn the keys of every layer."""
    from transformers import AutoModelForCausalLM, CohereConfig, SmolLM3Config

    sizes: dict[str, Any] = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    for config in (CohereConfig(**sizes), SmolLM3Config(**sizes)):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        made = LanguageModel(model, tiny.tokenizer("llama"))
        assert made.obstacle == ""
        assert "cannot be moved" in str(find_rotary(made.body))


@pytest.mark.parametrize(
    ("ids", "head", "stops"), [((1, 2, 3), 0, (1,)), ((1, 2), 1, (2,)), ((1, 2, 3), 2, (2,))]
)
def test_a_divided_prompt_has_all_parts(
    ids: tuple[int, ...], head: int, stops: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="cannot be divided"):
        BlockPrompt(ids, head, stops, (True,) * (len(stops) + 1))


def test_stores_may_be_shared_by_models(made: Any) -> None:
    """Lines of models with other weights have other keys."""
    prompt = divided(HEADS[0], [(40, 41, 42), (50, 51)], (60,))
    store = LineStore()
    for seed in (0, 1, 0):
        model = tiny.language_model("llama", seed=seed)
        fresh = LanguageModel(model.model, model.tokenizer)
        fresh.lines = store
        logits = fresh.read_blocks([prompt]).tree.logits.double()
        assert torch.allclose(logits, forward_blocks(model.model, prompt), atol=1e-4)
    assert store.use().lines == 6
    assert store.use().hits == 3
    del made
