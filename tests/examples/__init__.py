"""Tests of what ships as an example."""
