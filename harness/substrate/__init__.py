"""What a rank stands on: communicators, pools and devices, on NCCL or on a simulation."""
