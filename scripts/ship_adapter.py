"""Copy a training run into the package as the adapter of an embedded dataset.

    python scripts/ship_adapter.py RUN online_retail_demo --card CARD.md

The adapter's weights are rounded to bfloat16, which halves the file. So measure the adapter only after
this step. The card becomes the README.md beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import genrec
from genrec import files, runs
from genrec.runs import Run

KEPT = (runs.RUN, runs.CATALOG, runs.TRIE, runs.SETTINGS, runs.LOG)
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def ship(run: Path, place: Path, card: Path) -> None:
    """Write a run folder that others can use, in one piece."""
    about = Run.read(run)

    def fill(folder: Path) -> None:
        for name in KEPT:
            shutil.copy(run / name, folder / name)
        adapter = folder / runs.ADAPTER
        adapter.mkdir()
        weights = load_file(run / runs.ADAPTER / WEIGHTS)
        rounded = {name: value.to(torch.bfloat16) for name, value in weights.items()}
        save_file(rounded, adapter / WEIGHTS)
        config = json.loads((run / runs.ADAPTER / CONFIG).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = about.base_model
        config["target_modules"] = sorted(config["target_modules"])
        (adapter / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.copy(card, folder / "README.md")
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        tuned = run / "tuned.json"
        if tuned.is_file():
            shutil.copy(tuned, folder / tuned.name)

    files.write_folder(place, fill)


def main() -> None:
    """Parse the command line and ship the run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--card", type=Path, required=True)
    arguments = parser.parse_args()
    data = Path(genrec.__file__).parent / "data" / "samples" / arguments.dataset
    if not data.is_dir():
        parser.error(
            f"DATASET is {arguments.dataset!r}. Expected an embedded dataset, a folder in {data.parent}."
        )
    ship(arguments.run, data / "run", arguments.card)
    size = sum(p.stat().st_size for p in (data / "run").rglob("*") if p.is_file())
    print(f"{data / 'run'}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
