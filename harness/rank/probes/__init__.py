"""Functions that the parent has ranks call to measure them."""
