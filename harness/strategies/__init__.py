"""What is drawn, by Hypothesis in the parent: topologies, placements, programs, flows."""
