"""Train with Ray Train: every worker calls the same trainer, on one machine or on a cluster.

    pip install '.[ray]'
    python examples/15_train_with_ray.py shop runs/one --workers 4
    python examples/15_train_with_ray.py shop runs/one --workers 2 --cpu --max-targets 200

The dataset and the run folder need the same paths on all nodes. Rank and world size come from the process group that Ray
makes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def work(config: dict[str, Any]) -> None:
    """Train in one worker; the first one writes the run."""
    import genrec
    from genrec.training import trainer

    data = genrec.Dataset.load(config["data"])
    trainer.train(
        data, config["out"], config["model"], device=config["device"], **config["settings"]
    )


def main() -> None:
    """Start the workers, and wait for them."""
    parser = argparse.ArgumentParser(description="Train with Ray Train.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--cpu", action="store_true", help="without GPUs")
    parser.add_argument("--max-targets", type=int, default=100_000)
    given = parser.parse_args()

    import ray
    from ray.train.torch import TorchTrainer

    config = {
        "data": str(given.data.resolve()), "out": str(given.out.resolve()), "model": given.model,
        "device": "cpu" if given.cpu else "auto", "settings": {"max_targets": given.max_targets},
    }  # fmt: skip
    workers = ray.train.ScalingConfig(num_workers=given.workers, use_gpu=not given.cpu)
    TorchTrainer(work, train_loop_config=config, scaling_config=workers).fit()


if __name__ == "__main__":
    main()
