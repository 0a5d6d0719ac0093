"""Property tests as a user of the plugin writes them: `pytest -n auto examples/test_property.py`.

Options: --symm-substrate, --symm-world, --symm-pool, --symm-sites, --symm-collectives, --symm-evidence,
--symm-seeds-dir, --symm-shrink-seconds, --symm-lease-timeout.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Topology, flows, scenarios, topologies

DEPLOYMENT = Topology("tp4-dpa2", "sglang", {"tp": 4, "attn_dp": 2})


@settings(max_examples=25, deadline=None)
@given(scenario=scenarios(world=4))
def test_every_collective_owns_its_buffers_and_is_exact(world, scenario):
    world.check(scenario)


@settings(max_examples=15, deadline=None)
@given(scenario=scenarios(topologies=topologies(4, conventions=["megatron-core"]), via="kernel"))
def test_kernels_on_megatron_layouts(world, scenario):
    world.check(scenario)


@settings(max_examples=15, deadline=None)
@given(scenario=flows(world=4))
def test_layers_as_the_engine_pads_them(world, scenario):
    world.check(scenario)


@settings(max_examples=15, deadline=None)
@given(scenario=flows(topologies=st.just(DEPLOYMENT), tokens="uneven"))
def test_one_deployment_with_uneven_tokens(world, scenario):
    world.check(scenario)
