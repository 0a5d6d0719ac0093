"""Named topologies, one JSON file each; `harness.topology.find` reads them by name."""
