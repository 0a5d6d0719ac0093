"""Pages: what a seed and a run show, as plain data and as pictures of it."""
