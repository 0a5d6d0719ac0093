"""The Triton kernels in the interpreter, in a process of their own, against torch in this one."""
