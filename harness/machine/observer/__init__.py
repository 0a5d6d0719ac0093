"""The observer: a library in front of NCCL that writes down what a program does with it."""
