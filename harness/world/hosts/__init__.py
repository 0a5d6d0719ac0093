"""One world over several hosts: what torchrun or srun started, the parent's end and a task's."""
