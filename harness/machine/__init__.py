"""The GPUs and the NCCL of this host, looked at without touching a device."""
