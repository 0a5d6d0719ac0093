"""Measured collectives as tables, bars and plots, in a terminal and as one HTML page."""
