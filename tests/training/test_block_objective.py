"""Losses under the mask: equal to the gathered form at inference, and to one slow masked pass."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from support.block_attention import block_inputs, forward_blocks
from support.tiny_runs import fresh, made

from genrec import Recommender
from genrec.errors import SettingsError
from genrec.models.block_prompt import BlockPrompt
from genrec.models.language_model import LanguageModel
from genrec.training import examples
from genrec.training.block_objective import BlockObjective, lay_out_blocks
from genrec.training.block_rows import Goal, make_block_row
from genrec.training.config import Training
from genrec.training.losses import lay_out, to_tensors

KINDS = ("llama", "qwen2", "qwen3", "gemma", "neox")


def objective(
    recommender: Recommender, settings: Training, data: Any
) -> tuple[examples.Examples, BlockObjective]:
    found, paths = examples.make_examples(recommender, data, settings)
    titles = list(recommender.encoder.titles(recommender.catalog))
    return found, BlockObjective(found, paths, recommender.model, settings, titles)


@pytest.mark.parametrize(
    ("kind", "basket", "recent"),
    [
        ("llama", "tree", 2), ("llama", "as_is", 0), ("qwen2", "tree", 0), ("qwen3", "first", 1),
        ("gemma", "as_is", 1), ("neox", "tree", 2),
    ],
)  # fmt: skip
def test_a_targets_nats_are_what_recommend_says(kind: str, basket: str, recent: int) -> None:
    """Packed rows in training, and lines from the store at inference."""
    data = made(12)
    recommender = Recommender(
        data, fresh(kind), exclude_seen=False, prior="none", encoder="none",
        attention="by_event", recent_events=recent,
    )  # fmt: skip
    settings = Training(basket=basket, pack_tokens=700)
    found, ours = objective(recommender, settings, data)
    assert len(found.packs) < len(found.rows)
    assert max(len(row.item) for row in found.rows) > 3
    packs = list(range(len(found)))
    with torch.no_grad():
        nats, losses = ours.losses(recommender.model.model, ours.batch(packs))
        alone = examples.Examples(found.rows, found.weights, [[i] for p in found.packs for i in p])
        ours._data = alone
        rows = range(len(alone))
        apart = [ours.losses(recommender.model.model, ours.batch([i]))[0] for i in rows]
    assert torch.cat(apart).tolist() == pytest.approx(nats.tolist(), abs=1e-4)
    assert losses.tolist() == pytest.approx(nats.tolist(), abs=1e-4)
    c = data.interactions.columns
    unit = np.arange(len(c.row)) if basket == "as_is" else c.unit
    events = [int(e) for p in found.packs for i in p for e in found.rows[i].event]
    full, differences = recommender.with_settings(attention="full"), []
    for value, event in zip(nats.tolist(), events, strict=True):
        first = int(np.flatnonzero(unit == unit[event])[0])
        target = data.interactions.interaction(event)
        if first > recommender.settings.max_events or target.behavior != "buy":
            continue
        known = [data.interactions.interaction(i) for i in range(first)]
        said, whole = (
            r.with_settings(target_behavior="buy").score(known or "", [str(target.item_id)])[0]
            for r in (recommender, full)
        )
        assert said.logprob == pytest.approx(-value, abs=1e-4)
        differences.append(abs(whole.logprob + value))
    assert len(differences) > 3
    assert max(differences) > 1e-3  # the mask makes a difference


@functools.cache
def prepared(kind: str) -> tuple[LanguageModel, BlockObjective]:
    """A model that accepts moved keys, and its objective."""
    model = fresh(kind)
    recommender = Recommender(
        made(3), model, prior="none", encoder="none", attention="by_event", recent_events=0
    )
    return model, objective(recommender, Training(), recommender.dataset)[1]


LINES = st.lists(st.integers(3, 299), min_size=1, max_size=5).map(tuple)


@st.composite
def prompts(draw: st.DrawFn) -> list[BlockPrompt]:
    """Prompts of one row: the same head, and more and more of the same blocks."""
    head = tuple(draw(st.lists(st.integers(3, 299), min_size=1, max_size=4)))
    lines = draw(st.lists(LINES, min_size=1, max_size=5))
    found = []
    for n in sorted(draw(st.lists(st.integers(0, len(lines)), min_size=1, max_size=3))):
        stops = np.cumsum([len(head), *map(len, lines[:n])])[1:].tolist()
        ids = (*head, *(i for line in lines[:n] for i in line), *draw(LINES))
        found.append(BlockPrompt(ids, len(head), tuple(stops), (True,) * (n + 1)))
    return found


@given(st.sampled_from(KINDS), st.lists(prompts(), min_size=1, max_size=3), LINES)
def test_a_row_equals_one_masked_pass_for_each_prompt(
    kind: str, rows: list[list[BlockPrompt]], title: tuple[int, ...]
) -> None:
    """The slow pass has copies of the head instead of moved keys."""
    model, ours = prepared(kind)
    packs = [[make_block_row([(p, [Goal(0, 0, title)]) for p in row]) for row in rows]]
    arrays, before, at, _ = lay_out(packs, [[np.ones(len(row)) for row in rows]])
    inputs = to_tensors(arrays | lay_out_blocks(packs))
    with torch.no_grad():
        states, head = ours._states(model.model, inputs)
        logits = head.all(states).double()
    plain = tiny.language_model(kind).model
    for number, prompt in enumerate(p for row in rows for p in row):
        expected = forward_blocks(plain, prompt)
        assert torch.allclose(logits[before[number]], expected, atol=1e-4)
        expected = forward_blocks(plain, prompt, title)
        assert torch.allclose(logits[at[number] + len(title) - 1], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "checkpointing"), [*((kind, False) for kind in KINDS), ("llama", True)]
)
def test_gradients_are_those_of_the_slow_pass(kind: str, checkpointing: bool) -> None:
    model, ours = prepared(kind)
    ids = (5, 9, 11, 40, 41, 42, 50, 51, 60, 61, 62, 63, 70, 71)
    prompt = BlockPrompt(ids, 3, (6, 8, 12), (True,) * 4)
    packs = [[make_block_row([(prompt, [Goal(0, 0, ())])])]]
    arrays, before, _, _ = lay_out(packs, [[np.ones(1)]])
    inputs = to_tensors(arrays | lay_out_blocks(packs))
    plain = fresh(kind).model

    def gradients(one: Any, logits: torch.Tensor) -> list[torch.Tensor]:
        one.zero_grad()
        torch.autograd.backward(torch.log_softmax(logits, dim=-1)[7])
        return [p.grad for _, p in sorted(one.named_parameters())]

    if checkpointing:
        model, ours = prepared.__wrapped__(kind)  # another one, since this stays
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it has another name in newer versions
            model.model.gradient_checkpointing_enable({"use_reentrant": False})
    model.model.train()
    states, head = ours._states(model.model, inputs)
    found = gradients(model.model, head.all(states[int(before[0])]))
    model.model.eval()
    wanted = gradients(plain, plain(**block_inputs(prompt), use_cache=False).logits[0, -1])
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-3)
        assert float(b.abs().max()) > 0


def test_without_moved_keys_the_model_is_as_before() -> None:
    model, _ = prepared("llama")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        ours = model.model(ids).logits
        theirs = tiny.language_model("llama").model(ids).logits
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gpt2", "no rotary position embeddings"), ("gemma3", "sliding_attention")],
)
def test_models_that_cannot_be_trained_so_say_why(kind: str, reason: str) -> None:
    recommender = Recommender(made(3), fresh(kind), prior="none", encoder="none")
    found, paths = examples.make_examples(recommender, made(3), Training())
    with pytest.raises(SettingsError, match=f"by_event.*does not work with {kind}.*{reason}"):
        BlockObjective(found, paths, recommender.model, Training(), [])


def test_a_model_whose_layers_drop_the_moved_keys_is_refused() -> None:
    recommender = Recommender(made(3), fresh(), prior="none", encoder="none")
    layer = recommender.model.model.model.layers[1].self_attn
    whole = layer.forward

    def forward(*given: Any, moved_keys: Any = None, **named: Any) -> Any:
        return whole(*given, **named)

    layer.forward = forward
    found, paths = examples.make_examples(recommender, made(3), Training())
    with pytest.raises(SettingsError, match="in training, moved keys cannot be passed"):
        BlockObjective(found, paths, recommender.model, Training(), [])


def test_the_loss_over_the_vocabulary_works_under_the_mask() -> None:
    data = made(4)
    recommender = Recommender(
        data, fresh(), prior="none", encoder="none", attention="by_event", recent_events=1
    )
    settings = Training(basket="tree", vocab_weight=0.5)
    found, ours = objective(recommender, settings, data)
    with torch.no_grad():
        nats, losses = ours.losses(recommender.model.model, ours.batch(list(range(len(found)))))
    titles = list(recommender.encoder.titles(data.catalog))
    pairs = [
        (found.rows[i], g) for p in found.packs for i in p for g in range(len(found.rows[i].item))
    ]
    plain, c = tiny.language_model().model, data.interactions.columns
    assert len(pairs) == len(nats) > 4
    for place, (row, g) in enumerate(pairs):
        event = int(row.event[g])
        first = int(np.flatnonzero(c.unit == c.unit[event])[0])
        known = [data.interactions.interaction(i) for i in range(first)]
        target = data.interactions.interaction(event).behavior
        prompt = recommender.with_settings(target_behavior=target).prompt(known).by_event(1)
        title = titles[row.item[g]]
        chances = [
            torch.log_softmax(forward_blocks(plain, prompt, title[:i]), dim=-1)[title[i]]
            for i in range(len(title))
        ]
        extra = float(losses[place] - nats[place])
        assert extra == pytest.approx(-0.5 * float(sum(chances)), abs=1e-3)
