"""Running graphs: forward passes with intermediate values, branch decisions, integer kernels."""
