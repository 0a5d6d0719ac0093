"""Tests of the harness; the folders mirror its rooms."""
