"""The pool policies that ship, one design a file. Of the harness each imports `system.context` alone."""
