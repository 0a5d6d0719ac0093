"""A property test as a user of the plugin writes it: `pytest examples/test_property.py`.

Options: --symm-substrate, --symm-world, --symm-pool, --symm-sites, --symm-collectives, --symm-seeds-dir.
"""

from hypothesis import given, settings

from harness import scenarios


@settings(max_examples=25, deadline=None)
@given(scenario=scenarios(world=4))
def test_every_collective_owns_its_buffers_and_is_exact(world, scenario):
    world.check(scenario)
