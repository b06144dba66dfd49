"""Synchronous data parallelism for torch: averaged gradients, broadcasts."""
