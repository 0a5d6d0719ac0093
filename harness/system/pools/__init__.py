"""The pool policies that ship, one design a file."""
