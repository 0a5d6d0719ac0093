"""Commands that draw pages: of a seed, and of runs."""
