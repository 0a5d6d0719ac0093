"""Ranks of torch.distributed over Gloo that make an engine's groups and write down what torch lists of them.

Run as a program: `python -m tests.tools.printed_groups RANK WORLD FOLDER`. Each rank leaves `configs-R.json`
(`_get_all_pg_configs`), `world-R.json` (`_world.pg_config_info`), `ranks-R.json` (`pg_group_ranks` by name) and
`recorder-R.json` (Flight Recorder).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PLAN: list[tuple[str, list[list[int]]]] = [
    ("TENSOR_MODEL_PARALLEL_GROUP", [[0, 1], [2, 3]]),
    ("DATA_PARALLEL_GROUP", [[0, 2], [1, 3]]),
    ("DATA_PARALLEL_GROUP_GLOO", [[0, 2], [1, 3]]),
    ("", [[0, 3], [1, 2]]),
]
"""Groups by description; then a mesh of dp and tp."""


def run(folder: Path, world: int = 4) -> None:
    """Run all ranks, and wait for them."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.tools.printed_groups", str(rank), str(world), str(folder)],
            env={**os.environ, "TORCH_FR_BUFFER_SIZE": "16", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
        for rank in range(world)
    ]
    assert [rank.wait(120) for rank in ranks] == [0] * world


def _main(rank: int, world: int, folder: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    for label, groups in PLAN:
        for group in groups:
            dist.new_group(group, group_desc=label or None)
    init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    for name, value in _listings().items():
        (folder / f"{name}-{rank}.json").write_text(json.dumps(value))
    dist.barrier()
    dist.destroy_process_group()


def _listings() -> dict[str, Any]:
    from torch._C import _distributed_c10d
    from torch.distributed import distributed_c10d

    world = distributed_c10d._world
    names = world.pg_names
    return {
        "configs": distributed_c10d._get_all_pg_configs(),
        "world": world.pg_config_info,
        "ranks": {names[group]: ranks for group, ranks in world.pg_group_ranks.items() if group in names},
        "recorder": json.loads(_distributed_c10d._dump_fr_trace_json()),
    }


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
