"""The kernels on an NVIDIA GPU: fused CUDA sources, compiled and launched by CuPy."""
