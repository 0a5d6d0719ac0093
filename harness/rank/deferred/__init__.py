"""Calls whose results are looked at later than they are made: in graphs, and in flight."""
