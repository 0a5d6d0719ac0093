"""Triton device code: all-gather, reduce-scatter and the barrier between ranks.

Portable from Triton 3.6 on, and exact both on GPUs and in Triton's interpreter (see `rounding`).
"""
