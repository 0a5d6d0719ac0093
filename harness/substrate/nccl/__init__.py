"""`nccl`: real communicators, windows and kernels, one process a rank, any number of ranks a GPU."""
