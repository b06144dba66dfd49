"""The contracts of transports and kernels, shipped so that a cluster can be checked."""
