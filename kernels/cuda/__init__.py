"""CUDA C++ device code and the collectives that it makes: `ll.cu` for small calls, `fused.cu` for the others."""
