"""Compare the beam that stays on the device to the beam on the host."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from genrec.decoding import gpu_beam
from genrec.decoding.filters import Filter, Filters
from genrec.decoding.gpu_beam import Beam, DeviceTrie
from genrec.decoding.search import search
from genrec.decoding.trie import TitleTrie
from genrec.decoding.types import Options, Ranking
from genrec.errors import ModelError
from genrec.models.cached_tree import CachedTree
from genrec.models.logits import Outputs

END = 2
KINDS = ("llama", "qwen3", "gpt2", "mistral", "gemma3")
Request = tuple[TitleTrie, str, list[list[int]], list[int], Filters | None, Options]


@st.composite
def asked(draw: st.DrawFn) -> Request:
    """Draw several prompts, and titles of few tokens that share beginnings, runs and leaves."""
    title = st.lists(st.integers(3, 7), min_size=0, max_size=7).map(lambda ids: [*ids, END])
    trie = TitleTrie(draw(st.lists(title, min_size=1, max_size=40)))
    prompt = st.lists(st.integers(3, 200), min_size=1, max_size=24)
    prompts = draw(st.lists(prompt, min_size=1, max_size=3))
    n = trie.n_positions
    filters = None
    if draw(st.booleans()):
        some = st.lists(st.integers(0, n - 1), max_size=n)
        make = draw(st.sampled_from([Filter.allow, Filter.deny]))
        common = Filter.deny(draw(some), n) if draw(st.booleans()) else None
        filters = Filters([make(draw(some), n) for _ in prompts], common)
    options = Options(
        search="beam",
        beam_size=draw(st.integers(1, 12)),
        temperature=draw(st.sampled_from([1.0, 0.5, 3.0])),
        min_probability=draw(st.sampled_from([0.0, 0.01])),
        fill=0,  # on the device no pass is filled up
        on_device=False,
    )
    k = [draw(st.integers(1, 8)) for _ in prompts]
    return trie, draw(st.sampled_from(KINDS)), prompts, k, filters, options


def both(asked: Request) -> Iterator[tuple[Ranking, Ranking]]:
    """Return each user's list from the host and from the device."""
    trie, kind, prompts, k, filters, options = asked
    found = []
    for on_device in (False, True):
        tree = tiny.language_model(kind).prefill_many(prompts)
        settings = Options(
            **{n: getattr(options, n) for n in options.__slots__ if n != "on_device"},
            on_device=on_device,
        )
        found.append(search(trie, tree, k, allowed=filters, options=settings))
    return zip(*found, strict=True)


@given(asked())
def test_lists_and_certificates_are_those_of_the_host(asked: Request) -> None:
    for host, device in both(asked):
        assert device.scores == pytest.approx(host.scores, abs=1e-4)
        assert device.logprobs == pytest.approx(host.logprobs, abs=1e-4)
        # order is free among equals
        gaps = np.abs(np.diff(host.scores, prepend=np.inf, append=-np.inf)) > 2e-4
        sure = gaps[:-1] & gaps[1:]
        sure[-1:] = False  # one that is as good may stand outside
        assert device.rows[sure].tolist() == host.rows[sure].tolist()
        assert device.certificate.exact == host.certificate.exact
        assert device.certificate.missed_mass_bound == pytest.approx(
            host.certificate.missed_mass_bound, abs=1e-4
        )


def test_what_it_follows_is_what_the_host_follows() -> None:
    rng = np.random.default_rng(0)
    titles = {(*rng.integers(3, 12, rng.integers(2, 9)).tolist(), END) for _ in range(300)}
    options = Options(search="beam", beam_size=5, fill=0)
    request = (TitleTrie(sorted(titles)), "llama", [[5, 9, 11], [7]], [5, 9], None, options)
    for host, device in both(request):
        assert device.rows.tolist() == host.rows.tolist()
        assert device.certificate.nodes == host.certificate.nodes > 5
        assert device.certificate.tokens == host.certificate.tokens
        assert not device.certificate.exact
        assert device.certificate.missed_mass_bound > 0


def test_prompts_longer_than_the_window() -> None:
    rng = np.random.default_rng(1)
    titles = sorted({(*rng.integers(3, 9, 6).tolist(), END) for _ in range(60)})
    prompts = [rng.integers(3, 200, n).tolist() for n in (40, 21, 3)]
    for kind in ("mistral", "gemma3"):
        options = Options(search="beam", beam_size=6, fill=0)
        for host, device in both((TitleTrie(titles), kind, prompts, [6, 6, 6], None, options)):
            assert device.rows.tolist() == host.rows.tolist()
            assert device.scores == pytest.approx(host.scores, abs=1e-4)


def test_a_list_that_the_beam_does_not_fill_is_filled_by_the_host() -> None:
    titles = [[3, 3, 3, n, END] for n in range(4, 9)] + [[n, 3, END] for n in range(4, 20)]
    titles += [[n, 4, END] for n in range(4, 20)]
    trie = TitleTrie(titles)
    tree = tiny.language_model().prefill_many([[5, 6]])
    options = Options(search="beam", beam_size=1, on_device=True)
    (found,) = search(trie, tree, 20, options=options)
    assert len(found.rows) == 20


def test_the_tree_is_afterwards_as_before() -> None:
    trie = TitleTrie([[3, 4, END], [3, 5, END], [6, 4, END], [6, 5, END]])
    tree = tiny.language_model().prefill_many([[5, 6], [7]])
    before, fresh = tree.mark(), tiny.language_model().prefill_many([[5, 6], [7]])
    search(trie, tree, 2, options=Options(search="beam", on_device=True))
    assert tree.mark() == before
    ours, theirs = (t.grow([0, 1], [-1, -1], [[8], [9, 10]])[1].logits() for t in (tree, fresh))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_long_runs_are_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [[n, m, END] for n in range(3, 20) for m in range(3, 6)]
    titles += [[20, *[5] * 60, m, END] for m in (3, 4)]
    trie = TitleTrie(titles)
    device = DeviceTrie(trie, torch.device("cpu"))
    assert max(level.run for level in device.levels(8)) == 61
    assert gpu_beam.fits_limit(device, 1, 8, 100)
    assert not gpu_beam.fits_limit(device, 64, 10_000, 4000)
    monkeypatch.setattr(gpu_beam, "MOST", 10)
    monkeypatch.setattr(gpu_beam, "run_beam", None)  # so that it cannot run
    tree = tiny.language_model().prefill_many([[5, 6]])
    (found,) = search(trie, tree, 3, options=Options(search="beam", on_device=True))
    assert len(found.rows) == 3


def with_root(logits: torch.Tensor) -> CachedTree:
    """Return the tree of a prompt after which the model has the given (1, V) logits."""
    tree = tiny.language_model().prefill_many([[5, 6]])
    assert isinstance(tree, CachedTree)
    assert len(tree.root) == 1
    tree._root = Outputs(logits, None)
    return tree


def test_impossible_tokens_are_no_error() -> None:
    trie = TitleTrie([[3, END], [4, END], [6, END]])
    logits = torch.zeros(1, 400)
    logits[0, 3] = -torch.inf
    for on_device in (False, True):
        tree = with_root(logits)
        options = Options(search="beam", on_device=on_device)
        (found,) = search(trie, tree, 2, options=options)
        assert found.rows.tolist() == [1, 2]


def test_logits_that_are_no_numbers_are_an_error() -> None:
    trie = TitleTrie([[3, 4, END], [3, 5, END], [6, END]])
    tree = with_root(torch.full((1, 400), -torch.inf))
    with pytest.raises(ModelError, match="not finite"):
        search(trie, tree, 2, options=Options(search="beam", on_device=True))
    tree = with_root(torch.full((1, 400), torch.nan))
    with pytest.raises(ModelError, match="not finite"):
        search(trie, tree, 2, options=Options(search="beam", on_device=True))


def test_no_step_looks_at_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step runs on tensors without values, which fail if code looks at one."""
    titles = [[3, m, n, END] for m in (4, 5) for n in range(6, 18)]
    trie = TitleTrie(titles + [[n, END] for n in range(5, 31)])
    device = DeviceTrie(trie, torch.device("cpu"))
    levels = device.levels(4)
    assert len(levels) == 3
    head = torch.nn.Linear(8, 40)
    filters = gpu_beam.DeviceFilters(Filters([Filter.deny([3], 50)] * 2), torch.device("cpu"))
    counts = torch.tensor([[2], [3]])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        with pytest.raises(DataDependentOutputException):
            bool(mode.from_tensor(counts)[0, 0] > 1)
        beam = Beam(device, mode.from_tensor(counts), 3, filters=filters, floor=-9.0)
        for number, level in enumerate(levels):
            rows = 2 * beam.node.shape[1]
            beam.step(Outputs(mode.from_tensor(torch.zeros(rows, 8)), head), level)
            assert beam.node.shape == (2, level.beams or levels[number - 1].beams)
            device.runs(beam.node, level.run)


def test_reading_on_the_device_looks_at_no_values() -> None:
    model = tiny.language_model("gemma3")
    tree = model.prefill_many([[5, 6, 7], [8]])
    assert isinstance(tree, CachedTree)
    places, ids = tree.places(), torch.tensor([[3, 4], [5, 6]])
    depth, keep = torch.tensor([[1, 2], [1, 2]]), (torch.tensor([0, 1]), torch.tensor([1, 1]))
    seen = torch.tril(torch.ones(2, 2, 2)).bool()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        rows, columns = (mode.from_tensor(t) for t in keep)
        given = [mode.from_tensor(t) for t in (ids, depth, seen, depth, places)]
        ids, depth, seen, depths, places = given
        outputs = tree.read(ids, depth, seen, depths, places, (rows, columns))
        assert outputs.logits().shape == (2, model.body.vocabulary)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_never_waited_for() -> None:
    import copy

    trie = TitleTrie([[3, 4, n, END] for n in range(5, 30)] + [[n, END] for n in range(5, 30)])
    plain = tiny.language_model()
    moved = type(plain)(copy.deepcopy(plain.model).cuda(), plain.tokenizer, name="tiny")
    tree = moved.prefill_many([[5, 6], [7, 8, 9]])
    assert isinstance(tree, CachedTree)
    device = gpu_beam.copy_to_device(trie, tree.device)
    k = np.array([3, 3])
    gpu_beam.run_beam(device, tree, k, 4)  # what is made once
    found = search(trie, tree, 3, options=Options(search="beam", beam_size=4))
    host = search(trie, tree, 3, options=Options(search="beam", beam_size=4, on_device=False))
    assert [f.rows.tolist() for f in found] == [h.rows.tolist() for h in host]
    beam, levels = Beam(device, torch.from_numpy(k)[:, None].cuda(), 3), device.levels(4)
    beam.step(tree.root, levels[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        beam.step(
            Outputs(tree.root.logits().repeat_interleave(levels[0].beams, 0), None), levels[1]
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
