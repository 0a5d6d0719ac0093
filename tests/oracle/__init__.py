"""Every rule of the oracle, end to end: a planted fault that it must find, and a clean run nearby."""
