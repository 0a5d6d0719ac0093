"""Each planted pool is a sound one with a fault of the catalogue, which `tests/studies/faults` finds."""

from __future__ import annotations

import inspect
import re

import pytest

from harness.studies.faults.catalogue import FAULTS
from harness.system.planted import pools
from harness.system.planted.sound import EveryGroup, GoesWithout, Sound

PLANTED = [each for _, each in inspect.getmembers(pools, inspect.isclass) if each.__module__ == pools.__name__]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_pool_names_faults_of_the_catalogue(planted: type) -> None:
    named = re.findall(r"\b[FK]\d\d\b", inspect.getdoc(planted) or "")
    assert named
    assert {*named} <= {fault.id for fault in FAULTS}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_pool_differs_from_a_sound_one_in_what_it_overrides(planted: type) -> None:
    assert planted.__base__ in (Sound, EveryGroup, GoesWithout)
    overridden = {name for name, each in vars(planted).items() if inspect.isfunction(each)}
    assert overridden
    assert overridden <= {*dir(Sound), *dir(EveryGroup), *dir(GoesWithout)}
