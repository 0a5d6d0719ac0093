"""The planted faults by which the harness proves itself, and how they are looked for."""
