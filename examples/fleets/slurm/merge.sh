#!/usr/bin/env bash
#SBATCH --job-name=symm-merge
#SBATCH --ntasks=1
#SBATCH --time=00:10:00
#SBATCH --output=symm-merge-%j.log
set -euo pipefail
exec symm merge "night-$1" --into "night-$1/merged"
