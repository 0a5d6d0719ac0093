"""What engines call their groups, and the names that families have here.

Sources: `group_desc` in `core/parallel_state.py`, Megatron-Core 0.16.1; `group_name` in `parallel_state.py` of
SGLang 0.5.23 and of vLLM 0.33; `group_desc` of `DeviceMesh` and of the default group, PyTorch 2.13.
"""

from __future__ import annotations

import re

WORLD = "world"
"""The family of the group of all ranks."""

FAMILIES: dict[str, str] = {
    "tensor_model_parallel_group": "tp",
    "tensor_parallel": "tp",
    "pipeline_model_parallel_group": "pp",
    "pipeline_parallel": "pp",
    "data_parallel_group": "dp",
    "data_parallel": "dp",
    "context_parallel_group": "cp",
    "context_parallel": "cp",
    "data_parallel_group_with_cp": "dp_cp",
    "data_parallel_group_with_cp_ag": "dp_cp_ag",
    "intra_partial_data_parallel_group_with_cp": "intra_dp_cp",
    "model_parallel_group": "tp_pp",
    "tensor_and_data_parallel_group_with_cp": "tp_dp_cp",
    "tensor_and_data_parallel_group": "tp_dp",
    "tensor_and_context_parallel_group": "tp_cp",
    "embedding_group": "embedding",
    "position_embedding_group": "position_embedding",
    "expert_model_parallel_group": "ep",
    "expert_parallel": "ep",
    "expert_tensor_parallel_group": "etp",
    "expert_tensor_and_model_parallel_group": "etp_ep",
    "expert_tensor_model_pipeline_parallel_group": "etp_ep_pp",
    "expert_data_parallel_group": "expert_dp",
    "hierarchical_expert_data_parallel_group_l0": "intra_expert_dp",
    "hierarchical_expert_data_parallel_group_l1": "inter_expert_dp",
    "intra_distributed_optimizer_instance_group": "intra_dist_opt",
    "attention_tp": "attn_tp",
    "attention_cp": "attn_cp",
    "sequence_parallel": "sp",
    "ulysses_parallel": "ulysses",
    "ring_parallel": "ring",
    "default_pg": WORLD,
    "default": WORLD,
}
"""Engines' names in small letters, and the family of each. A name that is not here is a family of its own."""

_WHOLE = {"etp:device": "engram_tp", "edp:device": "engram_dp"}
"""In vLLM these divide a table of n-grams. Other engines mean experts by the same letters."""
_COUNTED = re.compile(r":(\d{1,4}|device)$", re.ASCII)
_ON_HOST = re.compile(r"(:cpu|_gloo(_l\d+)?)$", re.IGNORECASE)


def family_of(name: str) -> str:
    """The family that an engine's name of a group stands for, or the name itself where none is known.

    `tp:0` (a name with its count), `tp:device` and `mesh_tp` are `tp`; `tp:1`, made later, is `tp_2`.
    """
    if name in _WHOLE:
        return _WHOLE[name]
    counted = _COUNTED.search(name)
    number = int(counted[1]) if counted and counted[1].isdecimal() else 0
    return _known(_COUNTED.sub("", name)) + (f"_{number + 1}" if number else "")


def _known(name: str) -> str:
    small = name.lower().removeprefix("mesh_")
    if small in FAMILIES:
        return FAMILIES[small]
    return small if small != name.lower() else name


def is_on_host(name: str) -> bool:
    """Whether an engine calls a group one that NCCL has no part in."""
    return _ON_HOST.search(name) is not None
