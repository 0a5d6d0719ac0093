#!/usr/bin/env bash
# A night on Slurm: an array of shards, and a job that joins them when all have ended.
#
#   bash examples/fleets/slurm/submit.sh [SHARDS]
#
# Run it where `symm` is on the PATH, in a folder that all nodes see: the night is kept there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
night=$(sbatch --parsable --array="1-${1:-4}" "$here/shard.sh")
night=${night%%;*} # of several clusters, the name follows
# afterany: a shard that found something ends with status 1
sbatch --dependency="afterany:$night" "$here/merge.sh" "$night"
