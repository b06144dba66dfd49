"""Flat buffers that hold a model or a vector, and their division into pieces."""
