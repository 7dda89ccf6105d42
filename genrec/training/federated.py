"""Average the adapters of runs that were trained on the data of different sites.

Federated averaging (McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
Decentralized Data") takes the mean of the sites' weights, weighted by how much each site trained.
For LoRA there are two ways. ``tensors`` averages the matrices A and B by themselves; the mean of
products is then only approximated by the product of means. ``products`` averages the products B A,
and finds the matrices of the same rank whose product is nearest to it, by a singular value
decomposition (Bai et al. 2024, "Federated Fine-tuning of Large Language Models under Heterogeneous
Tasks and Client Resources").

Sites share adapters and, unless it is left out, the counts of the prior. Both are computed from their
users' events and can reveal something about them; averaging is no protection by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from genrec import files, runs
from genrec.data.catalog import Catalog
from genrec.errors import ModelError, SettingsError
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.merging import merge_counts
from genrec.runs import Run

AVERAGES = ("tensors", "products")
TENSORS, PRODUCTS = AVERAGES
WEIGHTS = "adapter_model.safetensors"
_SAME = {  # what must agree, by attribute of the run, and what to call it
    "base_fingerprint": "base model",
    "base_kept": "base model",
    "template_hash": "prompt template",
    "encoder_hash": "tokenizer or title format",
    "catalog_hash": "catalog",
}
_SAME_TRAINING = ("objective", "lora_rank", "lora_alpha", "dora", "target_modules")

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Federated:
    """The result of averaging runs.

    Attributes:
        run: the contents of the new ``run.json``.
        weights: the weight of each run; they sum to 1.
        kept: with ``products``, the share of the mean products' squared Frobenius norm that
            matrices of this rank can keep; 1 with ``tensors``, which does not compute it.
        prior: whether the new run has a prior.
        users: the number of users whose events the prior counts.
    """

    run: Run
    weights: tuple[float, ...]
    kept: float
    prior: bool
    users: int


def federate(
    folders: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    average: str = TENSORS,
    prior: bool = True,
) -> Federated:
    """Average the adapters of runs, add the counts of their priors, and write a new run folder.

    Args:
        folders: the run folders, at least two. Their users must be different people: a user in two of
            them would be counted twice.
        out: the folder of the new run, which must not exist or be empty.
        weights: the weight of each run; None for the number of targets that it was trained on.
        average: ``tensors`` or ``products``; see the module's docstring.
        prior: False to leave the prior out. It is also left out if a run has none.

    Raises:
        SettingsError: there are fewer than two runs, or the weights or ``average`` are invalid.
        ModelError: a folder is no run with an adapter, or the runs do not fit together.
    """
    if average not in AVERAGES:
        msg = f"Unknown value average={average!r}. Expected one of: {', '.join(AVERAGES)}."
        raise SettingsError(msg)
    if len(folders) < 2:
        msg = f"{len(folders)} runs were given. Expected at least two runs, of different sites."
        raise SettingsError(msg)
    files.check_new_folder(out)
    found = [Run.read(folder) for folder in folders]
    _check_fit(folders, found)
    shares = _shares(found, weights)
    adapters = [load_file(folder / runs.ADAPTER / WEIGHTS) for folder in folders]
    mean, kept = average_adapters(adapters, shares, average)
    merged = _merge_priors(folders) if prior else None
    targets = sum(run.targets for run in found)
    hashes = [  # those of private runs are not for others
        run.parts or ([] if "privacy" in run.metrics else [run.data_fingerprint]) for run in found
    ]
    parts = tuple(dict.fromkeys(part for each in hashes for part in each))
    run = replace(
        found[0],
        data=" + ".join(dict.fromkeys(run.data for run in found)),
        data_fingerprint=hashlib.sha256("".join(parts).encode()).hexdigest(),
        targets=targets,
        finished=all(run.finished for run in found),
        metrics={
            "federated": {
                "runs": len(found),
                "weights": list(shares),
                "average": average,
                "kept": kept,
            }
        },
        parts=parts,
    )
    first = folders[0]

    def fill(place: Path) -> None:
        adapter = place / runs.ADAPTER
        adapter.mkdir(parents=True)
        config = Path(runs.ADAPTER) / "adapter_config.json"
        (place / config).write_bytes((first / config).read_bytes())
        save_file(dict(mean), adapter / WEIGHTS, metadata={"format": "pt"})
        for name in (runs.CATALOG, runs.TRIE, runs.SETTINGS):
            if (first / name).is_file():
                (place / name).write_bytes((first / name).read_bytes())
        if merged is not None:
            merged.save(place / runs.PRIOR)
        run.write(place)

    files.write_folder(out, fill)
    users = 0 if merged is None else len(merged.counts.user_ids)
    return Federated(run, shares, kept, merged is not None, users)


def _check_fit(folders: Sequence[Path], found: Sequence[Run]) -> None:
    """Check that the adapters of runs can be averaged.

    Raises:
        ModelError: a run has no adapter, or the runs differ in something that must agree.
    """
    for folder in folders:
        if not (folder / runs.ADAPTER / WEIGHTS).is_file():
            msg = (
                f"{folder} has no adapter to average. Expected runs of `genrec train` with a lora_rank of "
                "at least 1."
            )
            raise ModelError(msg)
    first = found[0]
    for folder, run in zip(folders[1:], found[1:], strict=True):
        wrong = [name for key, name in _SAME.items() if getattr(run, key) != getattr(first, key)]
        wrong += [
            f"{key} ({first.training.get(key)!r} and {run.training.get(key)!r})"
            for key in _SAME_TRAINING
            if run.training.get(key) != first.training.get(key)
        ]
        if wrong:
            msg = (
                f"{folders[0]} and {folder} differ in: {', '.join(dict.fromkeys(wrong))}. Their adapters "
                "cannot be averaged. Train all sites with the same model, catalog, template and "
                "settings of LoRA."
            )
            raise ModelError(msg)


def _shares(found: Sequence[Run], weights: Sequence[float] | None) -> tuple[float, ...]:
    """Return the weights of the runs, divided by their sum.

    Raises:
        SettingsError: their number is wrong, or one is not a positive number.
    """
    given = [float(run.targets) for run in found] if weights is None else list(weights)
    if len(given) != len(found) or not all(w > 0 and np.isfinite(w) for w in given):
        msg = (
            f"weights={given} is not valid for {len(found)} runs. Expected a positive number for each, "
            "such as 2,1."
        )
        raise SettingsError(msg)
    return tuple(w / sum(given) for w in given)


def average_adapters(
    adapters: Sequence[Tensors], shares: Sequence[float], average: str
) -> tuple[dict[str, torch.Tensor], float]:
    """Average the tensors of adapters; see the module's docstring.

    Args:
        adapters: for each run, its tensors by name. The names that end with ``lora_A.weight`` are
            (rank, inputs), and those with ``lora_B.weight`` (outputs, rank).
        shares: the weight of each run; they sum to 1.
        average: ``tensors`` or ``products``.

    Returns:
        The tensors by name, and the share of the mean products' squared norm that was kept.

    Raises:
        ModelError: the adapters have different tensors.
    """
    shapes = [{name: tuple(t.shape) for name, t in adapter.items()} for adapter in adapters]
    if any(shape != shapes[0] for shape in shapes):
        msg = (
            "The adapters have different tensors, for example because the target_modules or the rank "
            "differ. Expected adapters of the same form."
        )
        raise ModelError(msg)
    mean = {
        name: sum(w * a[name].double() for w, a in zip(shares, adapters, strict=True)).to(t.dtype)  # type: ignore[union-attr]
        for name, t in adapters[0].items()
    }
    if average == TENSORS:
        return mean, 1.0
    total = lost = 0.0
    for name in [n for n in mean if "lora_A." in n]:
        other = name.replace("lora_A.", "lora_B.")
        down = torch.cat([a[name].double() for a in adapters])
        up = torch.cat(
            [w * a[other].double() for w, a in zip(shares, adapters, strict=True)], dim=1
        )
        b, a, values = nearest_product(up, down, len(mean[name]))
        total += float((values**2).sum())
        lost += float((values[len(mean[name]) :] ** 2).sum())
        mean[name], mean[other] = a.to(mean[name].dtype), b.to(mean[other].dtype)
    return mean, 1.0 - lost / total if total else 1.0


def nearest_product(
    up: torch.Tensor, down: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the matrices of a rank whose product is nearest to the product of two others.

    Args:
        up: (outputs, K) the left matrix.
        down: (K, inputs) the right matrix, with a small K.
        rank: the rank, at most K.

    Returns:
        The (outputs, rank) and (rank, inputs) matrices, between which the singular values are divided
        equally, and all K singular values of the product.
    """
    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(upper @ lower.T)
    root = values[:rank].sqrt()
    return left @ u[:, :rank] * root, (v[:rank] * root[:, None]) @ right.T, values


def _merge_priors(folders: Sequence[Path]) -> CollaborativePrior | None:
    """Add the counts of the runs' priors; None if a run has no prior that can be added."""
    if not all((folder / runs.PRIOR).is_file() for folder in folders):
        return None
    catalog = Catalog.read(folders[0] / runs.CATALOG)
    priors = [CollaborativePrior.load(folder / runs.PRIOR, catalog) for folder in folders]
    users: npt.NDArray[np.float64] = np.array([len(p.counts.user_ids) for p in priors], dtype=float)
    names = dict.fromkeys(name for p in priors for name in p.mix)
    mix = {
        n: float(
            sum(w * p.mix.get(n, 0.0) for w, p in zip(users, priors, strict=True)) / users.sum()
        )
        for n in names
    }
    merged = CollaborativePrior(merge_counts([p.counts for p in priors]), mix, {})
    merged.unread = frozenset.intersection(*(frozenset(p.unread) for p in priors))
    merged.lead_in_behaviors = frozenset.union(*(frozenset(p.lead_in_behaviors) for p in priors))
    return merged
