"""bfloat16 in NumPy; the conversions themselves live with the arrays."""

from acidmpi.arrays.bfloat16 import decode, encode

__all__ = ["decode", "encode"]
