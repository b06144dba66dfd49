"""Kernels compiled by Numba for the processor they run on."""
