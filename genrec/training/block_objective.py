"""Train under the mask of ``attention="by_event"``.

This module deals with models and batches, not with texts or datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.models.block_prompt import BlockPrompt
from genrec.models.block_reader import BlockReader, not_by_event
from genrec.models.language_model import LanguageModel
from genrec.models.line_store import LineStore
from genrec.models.moved_keys import MovedKeys, accept_moved_keys
from genrec.models.rotary import Rotary, find_rotary
from genrec.training.block_rows import BlockRow, Goal, make_block_row
from genrec.training.config import Training
from genrec.training.examples import Examples
from genrec.training.losses import lay_out, to_tensors
from genrec.training.objectives import NextItemObjective
from genrec.training.sequences import Row
from genrec.training.title_paths import TitlePaths
from genrec.types import IntArray

_PROBE = BlockPrompt((3, 5, 7, 11, 13, 17, 19, 23), 2, (4, 7), (True,) * 3)
_NO_BLOCK = -1


class BlockObjective(NextItemObjective):
    """The objective of predicting the next item, with events that are read by themselves."""

    def __init__(
        self,
        data: Examples,
        paths: TitlePaths,
        model: LanguageModel,
        training: Training,
        titles: Sequence[Sequence[int]],
    ) -> None:
        """Store the data that all batches share, and let the model accept moved keys.

        Args:
            data: the training examples, whose rows are ``BlockRow``.
            paths: see ``NextItemObjective``.
            model: the model to train, which is changed.
            training: see ``NextItemObjective``.
            titles: see ``NextItemObjective``.

        Raises:
            SettingsError: the model cannot be trained in this way.
        """
        super().__init__(data, paths, model, training, titles)
        rotary = find_rotary(model.body)
        if isinstance(rotary, str):
            raise not_by_event(model.name, rotary)
        self._rotary = rotary
        reason = accept_moved_keys(model.model) or self._probe(model, rotary)
        if reason:
            raise not_by_event(model.name, f"in training, {reason}")

    def batch(self, packs: Sequence[int]) -> dict[str, Tensor]:
        """Create a batch from packs; see ``Objective.batch`` and ``lay_out_blocks``."""
        rows = [[self._data.rows[i] for i in self._data.packs[p]] for p in packs]
        return super().batch(packs) | to_tensors(lay_out_blocks(rows))

    def _attention(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Return the attention mask and the moved keys."""
        moved = MovedKeys(self._rotary, inputs["moved_source"], inputs["moved_shift"])
        return {"attention_mask": self._additive(mark_blocks(inputs)), "moved_keys": moved}

    @torch.no_grad()
    def _probe(self, model: LanguageModel, rotary: Rotary) -> str:
        """Compare a pass over a row with the gathered form at inference.

        Returns:
            The reason why they differ; empty if they are equal.
        """
        rows = [[make_block_row([(_PROBE, [Goal(0, 0, ())])])]]
        arrays, before, _, _ = lay_out(rows, [[np.ones(1)]])
        inputs = {
            k: v.to(model.device) for k, v in to_tensors(arrays | lay_out_blocks(rows)).items()
        }
        inputs["input_ids"] %= model.body.vocabulary
        prompt = BlockPrompt(
            tuple(i % model.body.vocabulary for i in _PROBE.ids), _PROBE.head, _PROBE.stops,
            _PROBE.storable,
        )  # fmt: skip
        was_training = model.model.training
        model.model.eval()
        try:
            states, head = self._states(model.model, inputs)
            ours = head.all(states[int(before[0])]).float()
            reader = BlockReader(model.body, rotary, LineStore(0), "probe")
            theirs = reader.read([prompt]).tree.logits
        except (TypeError, ValueError, RuntimeError) as error:
            return f"moved keys cannot be passed to its layers ({type(error).__name__})"
        finally:
            model.model.train(was_training)
        tolerance = 1e-3 if model.dtype in {torch.float32, torch.float64} else 0.05
        same = (ours - theirs).norm() <= tolerance * theirs.norm()
        return "" if bool(same) else "moved keys do not reach its layers"


def lay_out_blocks(packs: Sequence[Sequence[Row]]) -> dict[str, IntArray]:
    """Copy what ``BlockRow`` adds to rows into padded arrays.

    Args:
        packs: for each of B packs, the rows in it, with at most T tokens together.

    Returns:
        * ``since`` (B, T), ``stem_first`` and ``stem_stop`` (B, T) describe each token as
          ``BlockRow`` does, with indices in the pack.
        * ``moved_source``, ``moved_shift`` and ``moved_for`` (B, E) describe the moved keys: the
          index of the token whose key is moved, by how many positions, and the index of the first
          token of the block that attends to it, or -1 for padding.
    """
    width = max(sum(map(len, pack)) for pack in packs)
    blocks = [[row for row in pack if isinstance(row, BlockRow)] for pack in packs]
    n_moved = max(sum(len(row.moved) for row in pack) for pack in blocks)
    since = np.broadcast_to(np.arange(width), (len(packs), width)).copy()
    stem = np.zeros((len(packs), width, 2), dtype=np.int64)
    moved = np.zeros((len(packs), n_moved, 3), dtype=np.int64)
    moved[:, :, 2] = _NO_BLOCK
    for b, pack in enumerate(blocks):
        start = first = 0
        for row in pack:
            where, keys = slice(start, start + len(row)), slice(first, first + len(row.moved))
            since[b, where], stem[b, where] = row.since + start, row.stem + start
            moved[b, keys] = row.moved + np.array([start, 0, start])
            start, first = where.stop, keys.stop
    return {
        "since": since,
        "stem_first": stem[:, :, 0],
        "stem_stop": stem[:, :, 1],
        "moved_source": moved[:, :, 0],
        "moved_shift": moved[:, :, 1],
        "moved_for": moved[:, :, 2],
    }


def mark_blocks(inputs: dict[str, Tensor]) -> Tensor:
    """Create the attention mask of a batch of B packs with T tokens and E moved keys each.

    Args:
        inputs: the tensors of the batch; see ``BlockObjective.batch``.

    Returns:
        A (B, 1, T, T + E) mask. In pack b, the value at [b, 0, i, j] is True if token i attends to
        token j, or to the moved key j - T.
    """
    document, branch, since = inputs["document"], inputs["branch"], inputs["since"]
    index = torch.arange(document.shape[1], device=document.device)
    trunk = (branch[:, None] == 0) & (index < inputs["limit"][:, :, None])
    own = (since[:, :, None] <= index) & (index <= index[:, None])
    stem = (inputs["stem_first"][:, :, None] <= index) & (index < inputs["stem_stop"][:, :, None])
    seen = (document[:, None] == document[:, :, None]) & (trunk | own | stem)
    moved = inputs["moved_for"][:, None] == since[:, :, None]
    return torch.cat((seen, moved), dim=2)[:, None]
