"""Right systems of unusual designs, in which the harness may find nothing.

Invariant: each is right in every program without hazards. Its docstring says what is unusual, and why it is right. What
does not say otherwise runs on GPUs, too.
"""
