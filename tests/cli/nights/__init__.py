"""Tests of the command line of a night."""
