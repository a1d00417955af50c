"""Element passes and statistics as numba kernels, for BF16, F16 and F32 on the CPU."""
