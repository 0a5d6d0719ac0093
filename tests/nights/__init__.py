"""Tests of what a night keeps."""
