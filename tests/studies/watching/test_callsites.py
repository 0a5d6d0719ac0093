"""The place of a call: of a stack, the frames in which a reader finds it."""

from __future__ import annotations

import pytest

from harness.studies.watching.callsites import place_of

ENGINE = """/site-packages/engine/wrapper.py:540 NCCLLibrary.ncclAllReduce
/site-packages/engine/communicator.py:161 Communicator.all_reduce
/job/model.py:45 layer
/job/model.py:70 main
<frozen runpy>:88 _run_code"""


@pytest.mark.parametrize(
    ("stack", "place"),
    [
        (ENGINE, "communicator.py:161 Communicator.all_reduce from model.py:45 layer"),
        ("/x/torch/distributed/c10d.py:3 all_gather\n/job/model.py:59 main\n/job/model.py:70 run", "model.py:59 main"),
        ("/x/torch/distributed/c10d.py:3 all_gather", "c10d.py:3 all_gather"),
        ("/job/model.py:5 ncclish", "model.py:5 ncclish"),
        ("thread python3", "thread python3"),
        ("", ""),
    ],
    ids=["engine", "torch", "torch alone", "no binding", "thread", "none"],
)
def test_the_place_is_the_code_that_wants_the_call_and_who_asked_it(stack: str, place: str) -> None:
    assert place_of(stack) == place
