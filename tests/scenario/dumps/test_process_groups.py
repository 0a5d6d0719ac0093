"""What torch.distributed lists of process groups that four ranks really made, over Gloo."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.dumps.differences import compare
from harness.scenario.dumps.disagreements import disagreements
from harness.scenario.dumps.documents import DumpError
from harness.scenario.dumps.dump import Dump, Layout, read
from harness.scenario.topology import Topology
from tests.tools import printed_groups

TP = ((0, 1), (2, 3))
DP = ((0, 2), (1, 3))
RANKS = range(4)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("printed")
    printed_groups.run(folder)
    return folder


def dump(printed: Path, kind: str, ranks: range = RANKS, **renamed: str) -> Dump:
    found = read([str(printed / f"{kind}-{rank}.json") for rank in ranks], renamed)
    assert isinstance(found, Dump)
    return found


@pytest.mark.parametrize("kind", ["configs", "world"])
def test_families_are_those_that_were_made(printed: Path, kind: str) -> None:
    found = dump(printed, kind)
    assert found.families == {
        "world": ((0, 1, 2, 3),),
        "tp": TP,
        "dp": DP,
        "undefined": ((0, 3), (1, 2)),
        "dp_2": DP,
        "tp_2": TP,
    }
    assert (found.layout.speakers, found.left_out, disagreements(found.entries)) == ({*RANKS}, 4, [])


@pytest.mark.parametrize("kind", ["configs", "world", "ranks"])
def test_one_rank_shows_its_own_groups(printed: Path, kind: str) -> None:
    found = dump(printed, kind, range(3, 4))
    assert found.layout.speakers == {3}
    assert {rank for groups in found.families.values() for group in groups for rank in group} == {0, 1, 2, 3}
    assert all(3 in group for groups in found.families.values() for group in groups)


def test_places_by_rank_are_named_by_number(printed: Path) -> None:
    names = dict.fromkeys(("1", "2"), "tp") | dict.fromkeys(("3", "4"), "dp")
    found = dump(printed, "ranks", RANKS, **names)
    assert (found.families["tp"], found.families["dp"]) == (TP, DP)


def test_groups_agree_with_the_degrees_that_made_them(printed: Path) -> None:
    degrees = Topology("degrees", "megatron-core", {"tp": 2, "dp": 2})
    found = compare(dump(printed, "configs").layout, Layout.of(degrees))
    assert (found.differences, found.compared) == ((), ("tp", "dp"))


def test_groups_differ_from_other_degrees(printed: Path) -> None:
    degrees = Topology("degrees", "megatron-core", {"tp": 2, "dp": 2, "order": "dp-tp-cp-ep-pp"})
    found = compare(dump(printed, "configs").layout, Layout.of(degrees))
    assert [(one.family, other.family) for one, other in found.swapped] == [("dp", "tp")]


def test_the_topology_has_a_communicator_for_each_process_group(printed: Path) -> None:
    made = dump(printed, "configs").topology("made")
    assert [{group.number for group in made.ids[name]} for name in ("tp", "tp_2", "dp", "dp_2")] == [{0}, {1}, {0}, {1}]


def test_a_recorder_that_saw_no_nccl_shows_no_group(printed: Path) -> None:
    with pytest.raises(DumpError, match="shows no group"):
        dump(printed, "recorder")
