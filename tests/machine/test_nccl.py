"""NCCL of this host: its version, and the environment that ranks run it with."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from harness.machine import nccl
from harness.machine.nccl import environment, node_environment


def with_nccl(monkeypatch: pytest.MonkeyPatch, get_version: Any) -> None:
    bindings = SimpleNamespace(nccl=SimpleNamespace(get_version=get_version))
    monkeypatch.setitem(sys.modules, "nccl.bindings", bindings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "version"), [(22703, (2, 27, 3)), (23000, (2, 30, 0)), (23212, (2, 32, 12))])
def test_the_version_number_of_nccl_is_taken_apart(
    monkeypatch: pytest.MonkeyPatch, number: int, version: tuple[int, int, int]
) -> None:
    with_nccl(monkeypatch, lambda: number)
    assert nccl.version() == version


def test_no_version_without_the_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nccl.bindings", None)
    assert nccl.version() is None


def test_no_version_where_the_library_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise RuntimeError("libnccl.so.2: cannot open shared object file")

    with_nccl(monkeypatch, refuse)
    assert nccl.version() is None


# the environment of ranks


@pytest.mark.parametrize("ranks_per_gpu", [1, 2, 16])
def test_multicast_is_always_off(ranks_per_gpu: int) -> None:
    given = environment(ranks_per_gpu)
    assert (given["NCCL_NVLS_ENABLE"], given["TORCH_SYMM_MEM_DISABLE_MULTICAST"]) == ("0", "1")


def test_a_rank_with_a_gpu_of_its_own_is_not_held_back() -> None:
    assert not {"NCCL_MULTI_RANK_GPU_ENABLE", "NCCL_MAX_CTAS"} & environment(1).keys()


@pytest.mark.parametrize("ranks_per_gpu", [2, 8, 16])
def test_ranks_that_share_a_gpu_are_allowed_to(ranks_per_gpu: int) -> None:
    assert environment(ranks_per_gpu)["NCCL_MULTI_RANK_GPU_ENABLE"] == "1"


@pytest.mark.parametrize(("ranks_per_gpu", "blocks"), [(2, "16"), (4, "8"), (8, "4"), (16, "2"), (40, "1")])
def test_the_more_ranks_share_a_gpu_the_fewer_blocks_each_may_use(ranks_per_gpu: int, blocks: str) -> None:
    assert environment(ranks_per_gpu)["NCCL_MAX_CTAS"] == blocks


def test_a_limit_of_the_users_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_MAX_CTAS", "7")
    assert environment(8)["NCCL_MAX_CTAS"] == "7"


def test_processes_of_two_nodes_say_that_they_are_on_different_hosts() -> None:
    assert node_environment(0)["NCCL_HOSTID"] != node_environment(1)["NCCL_HOSTID"]


def test_processes_of_different_nodes_talk_over_sockets() -> None:
    assert (node_environment(0)["NCCL_NET"], node_environment(0)["NCCL_MNNVL_ENABLE"]) == ("Socket", "0")
