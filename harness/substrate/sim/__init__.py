"""`sim`: NCCL's window rules and PyTorch's caching allocator on CPU processes over one shared memory."""
