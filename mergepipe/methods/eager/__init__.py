"""Element passes in torch: every dtype, any device; the reference for the fused kernels."""
