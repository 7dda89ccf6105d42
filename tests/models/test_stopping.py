"""A model stops between two passes."""

from __future__ import annotations

import threading

import pytest
from support import tiny

from genrec.models.language_model import LanguageModel
from genrec.models.stopping import StoppedError, stop_when
from genrec.models.token_tree import ROOT, TokenTree

PROMPT = [3, 4, 5, 6]


def read(model: LanguageModel) -> TokenTree:
    """Read the prompt, which may otherwise wait until something is asked about it."""
    tree = model.prefill(PROMPT)
    assert tree.root is not None
    return tree


@pytest.mark.parametrize("plain", [False, True])
def test_it_stops_before_the_next_pass_of_this_thread(plain: bool) -> None:
    model = tiny.language_model(plain=plain)
    stop = False
    with stop_when(lambda: stop):
        tree = model.prefill(PROMPT)
        tree.grow([0], [ROOT], [[7]])
        stop = True
        with pytest.raises(StoppedError):
            tree.grow([0], [ROOT], [[8]])
        with pytest.raises(StoppedError):
            read(model)
        other: list[object] = []
        thread = threading.Thread(target=lambda: other.append(read(model)))
        thread.start()
        thread.join()
        assert len(other) == 1  # another thread goes on
        with stop_when(lambda: False):
            read(model)
        with pytest.raises(StoppedError):
            read(model)
    read(model)
