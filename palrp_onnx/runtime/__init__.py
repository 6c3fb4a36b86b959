"""Running graphs: forward passes with intermediate values, branches taken, kernels."""
