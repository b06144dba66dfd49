"""The kernel contract on every backend that can be loaded here."""

from acidmpi.testing.kernels import test_kernels_keep_the_contract

__all__ = ["test_kernels_keep_the_contract"]
