"""Layouts: the groups of ranks of a job, given or computed from parallel degrees under one engine's convention."""
