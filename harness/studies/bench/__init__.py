"""Measurements, each way of doing a thing in one run."""
