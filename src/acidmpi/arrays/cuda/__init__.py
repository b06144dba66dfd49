"""CUDA devices behind CuPy: which one a rank takes, and its queues."""
