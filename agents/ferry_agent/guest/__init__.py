"""Guests: real memory, a deterministic workload on it that keeps books, and the vCPU thread that runs it."""
