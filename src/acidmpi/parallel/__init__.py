"""Synchronous data parallelism: gradients of all ranks, averaged while they arrive."""
