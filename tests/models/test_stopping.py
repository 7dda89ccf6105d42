"""A model stops between two passes."""

from __future__ import annotations

import threading

import pytest
from support import tiny

from genrec.models.stopping import StoppedError, stop_when
from genrec.models.token_tree import ROOT

PROMPT = [3, 4, 5, 6]


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
            model.prefill(PROMPT)
        other: list[object] = []
        thread = threading.Thread(target=lambda: other.append(model.prefill(PROMPT)))
        thread.start()
        thread.join()
        assert len(other) == 1  # another thread goes on
        with stop_when(lambda: False):
            model.prefill(PROMPT)
        with pytest.raises(StoppedError):
            model.prefill(PROMPT)
    model.prefill(PROMPT)
