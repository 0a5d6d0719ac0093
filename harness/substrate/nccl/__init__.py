"""A rank on a GPU: NCCL through nccl4py, memory through torch.cuda.MemPool."""
