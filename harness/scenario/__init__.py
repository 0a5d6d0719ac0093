"""What is run, as frozen data: layouts, topologies, steps, systems under test, scenarios."""
