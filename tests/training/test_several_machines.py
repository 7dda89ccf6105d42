"""Training on several machines: the script for SLURM and the example with Ray Train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.amount import FULL
from support.tiny_runs import place as place

from genrec.data.dataset import Dataset
from genrec.runs import Run
from genrec.training import trainer

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "14_train_on_nodes.sh"
RAY = ROOT / "examples" / "15_train_with_ray.py"
SCONTROL = (
    '#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node[1-2]" ] && printf "127.0.0.1\\nnode2\\n"\n'
)
# Two nodes on this machine: the task of each one with its number, side by side, as srun starts them.
SRUN = """#!/bin/bash
for node in 0 1; do SLURM_NODEID=$node "$@" & tasks+=($!); done
for task in "${tasks[@]}"; do wait "$task" || exit 1; done
"""
RECORD = """#!/bin/bash
printf '%s\\n' "$@" > "$RECORDS/$SLURM_NODEID"
"""


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def submit(folder: Path, arguments: list[str], **environment: str) -> None:
    """Run the script as a job of two nodes, with the programs in a folder before all others."""
    program(folder, "scontrol", SCONTROL)
    program(folder, "srun", SRUN)
    given = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2", "SLURM_SUBMIT_DIR": str(ROOT), **environment,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(SLURM), *arguments], env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_each_node_launches_the_same_training_with_its_own_rank(tmp_path: Path) -> None:
    program(tmp_path, "accelerate", RECORD)
    submit(
        tmp_path, ["my shop", "runs/one", "--resume", "--max-targets", "9"], RECORDS=str(tmp_path)
    )
    from accelerate.commands.launch import launch_command_parser

    for node in (0, 1):
        said = (tmp_path / str(node)).read_text(encoding="utf-8").splitlines()
        assert said[0] == "launch"
        found = launch_command_parser().parse_args(said[1:])  # accelerate's own parser
        assert (found.num_machines, found.machine_rank, found.num_processes) == (2, node, 8)
        assert (found.main_process_ip, found.main_process_port) == ("127.0.0.1", 29500)
        assert found.multi_gpu
        assert found.training_script == str(ROOT / "scripts" / "train.py")
        assert found.training_script_args == [
            "my shop", "--out", "runs/one", "--resume", "--max-targets", "9",
        ]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def trained_alone(place: Path, name: str) -> dict[str, torch.Tensor]:
    """Train with one process, whose batches are as large as those of two."""
    data = Dataset.load(place / "data")
    trainer.train(
        data, place / name, str(place / "tiny-llama"), max_targets=120, batch_size=2, eval_users=0,
        tune_users=0, device="cpu", dtype="float32", threads=1,
    )  # fmt: skip
    return weights(place / name)


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="starts four processes; only with scripts/test --full")
def test_two_nodes_are_as_one_process_with_the_doubled_batch(place: Path, tmp_path: Path) -> None:
    program(
        tmp_path,
        "accelerate",
        f'#!/bin/sh\nexec {sys.executable} -m accelerate.commands.accelerate_cli "$@"\n',
    )
    options = [
        "--model", str(place / "tiny-llama"), "--max-targets", "120", "--batch-size", "1",
        "--eval-users", "0", "--tune-users", "0", "--device", "cpu", "--dtype", "float32", "--threads", "1",
    ]  # fmt: skip
    submit(
        tmp_path, [str(place / "data"), str(place / "nodes"), *options],
        PROCESSES="1", PORT="29613", ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1",
    )  # fmt: skip
    two, one = weights(place / "nodes"), trained_alone(place, "alone")
    assert max(float((two[k] - one[k]).abs().max()) for k in two) < 1e-5
    assert json.loads((place / "nodes" / "run.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="starts Ray; only with scripts/test --full")
def test_two_workers_of_ray_are_as_one_process_with_the_doubled_batch(place: Path) -> None:
    pytest.importorskip("ray")
    command = [
        sys.executable, str(RAY), str(place / "data"), str(place / "ray"), "--model",
        str(place / "tiny-llama"), "--workers", "2", "--cpu", "--max-targets", "120",
    ]  # fmt: skip
    given = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made = Run.read(place / "ray")
    assert made.targets >= 120
    assert made.training["max_targets"] == 120
