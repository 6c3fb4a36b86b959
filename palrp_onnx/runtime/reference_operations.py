"""Operations that the onnx package's evaluator computes otherwise than the standard says.

Each class stands for the operation of its name in the forward pass in NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_average_pool, op_max_pool


class BatchNormalization(OpRun):
    """Without training; before opset 14 the package takes the statistics of the batch."""

    def _run(
        self,
        x: Any,
        scale: Any,
        bias: Any,
        mean: Any,
        variance: Any,
        epsilon: float = 1e-5,
        **_: Any,
    ) -> tuple[Any]:
        per_channel = (-1, *(1,) * (x.ndim - 2))
        scale, bias, mean, variance = (
            each.reshape(per_channel) for each in (scale, bias, mean, variance)
        )
        return (scale * (x - mean) / np.sqrt(variance + epsilon) + bias,)


class MaxPool(op_max_pool.MaxPool):
    """The package pads otherwise with ``auto_pad``, and takes lengths that differ for others."""

    def _run(self, x: Any, *_: Any, **attributes: Any) -> Any:  # type: ignore[override]
        own: Any = super()
        padded = _padded(x.shape[2:], attributes)
        return (own._run if padded is attributes else own._max_pool)(x, **padded)


class AveragePool(op_average_pool.AveragePool_19):
    """The package knows no ``auto_pad`` together with ``ceil_mode``."""

    def _run(self, x: Any, *_: Any, **attributes: Any) -> Any:  # type: ignore[override]
        own: Any = super()
        return own._run(x, **_padded(x.shape[2:], attributes))


def _padded(lengths: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes of pooling with the lengths that ``auto_pad`` stands for.

    As in ONNX Runtime, dilations do not count.
    """
    auto_pad = attributes.get("auto_pad") or "NOTSET"
    if auto_pad == "NOTSET":
        return attributes
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides") or [1] * len(kernel)
    pads = [0] * 2 * len(kernel)
    if auto_pad != "VALID":
        pads = _same_pads(lengths, kernel, strides, at_begin=auto_pad == "SAME_LOWER")
    return {**attributes, "auto_pad": "NOTSET", "pads": pads}


def _same_pads(lengths: Any, kernel: Any, strides: Any, *, at_begin: bool) -> list[int]:
    """Lengths before and after each axis, so that there is a window for every stride."""
    begins, ends = [], []
    for length, size, stride in zip(lengths, kernel, strides, strict=True):
        windows = -(-length // stride)
        added = max(0, (windows - 1) * stride + size - length)
        smaller, larger = added // 2, added - added // 2
        begins.append(larger if at_begin else smaller)
        ends.append(smaller if at_begin else larger)
    return [*begins, *ends]


class MeanVarianceNormalization(OpRun):
    """The package expands it into operations with numbers in single precision."""

    def _run(self, x: Any, axes: Any = (0, 2, 3)) -> tuple[Any]:
        along = tuple(axes)
        shifted = x - x.mean(along, keepdims=True)
        return (shifted / (np.sqrt((shifted**2).mean(along, keepdims=True)) + 1e-9),)


class Pad(OpRun):
    """Negative lengths take entries away, in every mode."""

    def _run(
        self,
        x: Any,
        pads: Any = None,
        fill: Any = None,
        axes: Any = None,
        mode: str = "constant",
        value: float = 0.0,
        **old: Any,
    ) -> tuple[Any]:
        lengths = np.asarray(old.get("paddings") if pads is None else pads).reshape(2, -1)
        both = np.zeros((2, x.ndim), np.int64)
        both[:, range(x.ndim) if axes is None else np.asarray(axes)] = lengths
        kept = tuple(
            slice(max(0, -begin), size - max(0, -end))
            for begin, end, size in zip(*both, x.shape, strict=True)
        )
        added = np.maximum(both, 0).T
        kind: Any = mode
        if mode != "constant":
            return (np.pad(x[kept], added, mode=kind),)
        number = value if fill is None or not np.size(fill) else np.asarray(fill).item()
        return (np.pad(x[kept], added, constant_values=number),)


CORRECTED = [AveragePool, BatchNormalization, MaxPool, MeanVarianceNormalization, Pad]
