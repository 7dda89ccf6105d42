"""Tiny models and datasets to train on."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec import Dataset
from genrec.data.splits import split_last_unit
from genrec.models.language_model import LanguageModel
from support import tiny
from support.baskets import dataset
from support.commands import Run

KINDS = ("llama", "gpt2", "qwen3", "gemma3", "mistral")


def fresh(kind: str = "llama", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Return a tiny model that a test may change."""
    shared = tiny.language_model(kind)
    return LanguageModel(copy.deepcopy(shared.model).to(dtype), shared.tokenizer, name=kind)


def doubled(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}


def made(n: int = 30, users: int = 1) -> Dataset:
    """Make a dataset with baskets of one to three items."""
    rng = np.random.default_rng(1)
    baskets = [
        [(int(i), "buy" if b else "view") for i, b in zip(rng.integers(0, 7, m), b, strict=True)]
        for m, b in ((m, rng.integers(0, 3, m)) for m in rng.integers(1, 4, n))
    ]
    return dataset(baskets, users)


FEW: dict[str, Any] = {
    "max_targets": 60, "eval_users": 0, "learning_rate": 3e-3, "pack_tokens": 128,
    "lora_dropout": 0.1, "tune_users": 0, "threads": 1, "device": "cpu", "dtype": "float32",
}  # fmt: skip


def saved(folder: Path, kind: str = "llama") -> Path:
    """Save a tiny model to a folder."""
    place = folder / f"tiny-{kind}"
    model = tiny.language_model(kind)
    model.model.save_pretrained(place)
    model.tokenizer.save_pretrained(place)
    return place


def done(run: Run, arguments: list[str]) -> str:
    """Run a command that must succeed, and return what it prints."""
    code, out, said = run(*arguments)
    assert code == 0, said
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with data and a tiny model."""
    folder = tmp_path_factory.mktemp("runs")
    data = made(8, users=12)
    events = split_last_unit(data.interactions, "buy")
    replace(data, interactions=events, info=replace(data.info, split="last unit")).save(
        folder / "data"
    )
    saved(folder)
    return folder
