#!/usr/bin/env bash
#SBATCH --job-name=symm-shard
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=8
#SBATCH --time=01:30:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=symm-shard-%A-%a.log
set -euo pipefail
# exec: the SIGTERM that comes before the end of the time reaches symm, and not this shell
exec symm fuzz --minutes 60 --run "night-$SLURM_ARRAY_JOB_ID/$SLURM_ARRAY_TASK_ID"
