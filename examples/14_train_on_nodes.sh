#!/usr/bin/env bash
# Train on several nodes with SLURM: each node runs the same line, and its rank comes from the job.
#
#   sbatch examples/14_train_on_nodes.sh DATA RUN [OPTIONS of genrec train]
#
# All nodes need the dataset and the run folder under the same paths. The run continues from its last
# checkpoint if the job is submitted again with --resume.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --requeue
set -euo pipefail
export PROCESSES=${PROCESSES:-4} # on each node, one for each GPU
export PORT=${PORT:-29500}
repository=${REPOSITORY:-$SLURM_SUBMIT_DIR} # a checkout of genrec
HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HOST

srun bash -c '
  exec accelerate launch --multi_gpu \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes "$((SLURM_NNODES * PROCESSES))" \
    --main_process_ip "$HOST" --main_process_port "$PORT" \
    --mixed_precision no --dynamo_backend no \
    "$0" "$1" --out "$2" "${@:3}"
' "$repository/scripts/train.py" "$@"
