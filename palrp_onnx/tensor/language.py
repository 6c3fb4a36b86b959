"""The small tensor language in which rules and the walk are written.

A back end gives these operations a meaning: numbers (``eager``) or graph nodes. Shapes are never
asked for: an operation that depends on a shape takes the tensor that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """How the window of a convolution moves over an image, axis by axis of its plane.

    Attributes:
        strides: Steps of the window.
        pads: Zeros before every axis, then behind every axis; or ``SAME_UPPER`` or ``SAME_LOWER``,
            halved from what the windows need beyond the image, the odd one behind or before it.
        dilations: Steps between the taps of the window.
        group: In how many groups channels are convolved apart.
        spare: Places of the image behind the last window (``output_padding``).
    """

    strides: Sequence[int]
    pads: Sequence[int] | str
    dilations: Sequence[int]
    group: int
    spare: Sequence[int]


class Language(Protocol[T]):
    """What a rule may use. ``m`` is a multiplier, of ``like`` only the shape counts."""

    # --- arithmetic, with broadcasting ---------------------------------------------------------
    def add(self, a: T, b: T) -> T:
        """a + b."""
        ...

    def sub(self, a: T, b: T) -> T:
        """a − b."""
        ...

    def mul(self, a: T, b: T) -> T:
        """a ∘ b."""
        ...

    def div(self, a: T, b: T) -> T:
        """a / b."""
        ...

    def scale(self, a: T, factor: float) -> T:
        """factor · a."""
        ...

    def shift(self, a: T, offset: float) -> T:
        """a + offset."""
        ...

    def power(self, a: T, exponent: float) -> T:
        """a to a constant power."""
        ...

    def relu(self, a: T) -> T:
        """max(a, 0)."""
        ...

    def absolute(self, a: T) -> T:
        """|a|."""
        ...

    def sign(self, a: T) -> T:
        """−1, 0 or 1."""
        ...

    def exp(self, a: T) -> T:
        """e to the power a."""
        ...

    def ratio(self, y: T, x: T, at_zero: float) -> T:
        """y / x, and ``at_zero`` where x = 0: the only stabilised division there is."""
        ...

    def relevance(self, x: T, m: T) -> T:
        """x ∘ m, and 0 where m = 0: an infinite mask that no multiplier reaches carries nothing."""
        ...

    def select(self, m: T, condition: T, truth: bool) -> T:
        """m where the condition is ``truth``, else 0."""
        ...

    def winners(self, x: T, y: T) -> T:
        """1 where x equals y, else 0, with broadcasting."""
        ...

    def zeros_like(self, like: T) -> T:
        """Zeros of the same shape."""
        ...

    def cast_like(self, a: T, like: T) -> T:
        """The same numbers in the type of ``like``, where types differ."""
        ...

    def wide(self, a: T) -> T:
        """The same numbers in a type that holds their squares."""
        ...

    # --- linear algebra ------------------------------------------------------------------------
    def matmul(self, a: T, b: T, *, transpose_a: bool = False, transpose_b: bool = False) -> T:
        """Matrix product of the last two axes; flags swap them first."""
        ...

    def outer_first(self, a: T, b: T) -> T:
        """a[..., :, None] ∘ b[..., None, :]."""
        ...

    def einsum(self, equation: str, operands: Sequence[T]) -> T:
        """Einstein summation with letters only."""
        ...

    def conv_adjoint(self, m: T, weight: T, like: T, window: Window) -> T:
        """The transposed linear map of a convolution without bias, for its input ``like``."""
        ...

    def conv(self, image: T, weight: T, like: T, window: Window) -> T:
        """A convolution without bias, with as many places as ``like``."""
        ...

    def interpolation(
        self, x: T, y: T, axis: int, scale: float | None, attributes: Mapping[str, Any]
    ) -> T:
        """What ``Resize`` does along one axis of ``x``, to that of ``y``, as a matrix.

        Its shape is [entries of y, entries of x]; ``scale`` is the factor where the operation was
        given one, else that of the lengths.
        """
        ...

    def averaging(self, x: T, axis: int, window: Mapping[str, Any]) -> T:
        """What ``AveragePool`` with these attributes does along one axis of ``x``, as a matrix.

        Its shape is [entries of the result, entries of ``x``].
        """
        ...

    def max_pool_adjoint(self, m: T, x: T, **window: Any) -> T:
        """``m`` added up at the first largest entry of every window; attributes of ``MaxPool``."""
        ...

    # --- reductions ----------------------------------------------------------------------------
    def sum(self, a: T, axes: Sequence[int], *, keepdims: bool = True) -> T:
        """Sum over axes."""
        ...

    def sum_to(self, a: T, like: T) -> T:
        """Undo right-aligned broadcasting: sum ``a`` to the shape of ``like``."""
        ...

    def mean_weight(self, like: T, reduced: T) -> T:
        """Scalar: size of ``reduced`` / size of ``like``."""
        ...

    def cumulative_adjoint(self, m: T, axis: int, *, exclusive: bool, reverse: bool) -> T:
        """Adjoint of a cumulative sum."""
        ...

    # --- movement ------------------------------------------------------------------------------
    def transpose(self, a: T, perm: Sequence[int]) -> T:
        """Permute axes."""
        ...

    def unsqueeze(self, a: T, axes: Sequence[int]) -> T:
        """Insert axes of length 1."""
        ...

    def reshape_like(self, a: T, like: T) -> T:
        """The same numbers in row-major order in the shape of ``like``."""
        ...

    def expand_like(self, a: T, like: T) -> T:
        """Broadcast to the shape of ``like``."""
        ...

    def concat(self, parts: Sequence[T], axis: int) -> T:
        """Join along an axis."""
        ...

    def split_like(self, a: T, likes: Sequence[T], axis: int) -> tuple[T, ...]:
        """Cut into pieces as long as ``likes`` along an axis."""
        ...

    def slice_adjoint(
        self, m: T, like: T, starts: T, ends: T, axes: T | None, steps: T | None
    ) -> T:
        """Zeros like ``like`` with ``m`` where the slice was taken."""
        ...

    def pad_adjoint(self, m: T, like: T, pads: T, axes: T | None) -> T:
        """The part of ``m`` that was not padding."""
        ...

    def tile_adjoint(self, m: T, like: T) -> T:
        """Sum of the copies."""
        ...

    def gather_adjoint(self, m: T, like: T, index: T, axis: int) -> T:
        """Add ``m`` up where Gather took it from."""
        ...

    def gather_elements_adjoint(self, m: T, like: T, index: T, axis: int) -> T:
        """Add ``m`` up where GatherElements took it from."""
        ...

    def gather_nd_adjoint(self, m: T, like: T, index: T, batch_dims: int) -> T:
        """Add ``m`` up where GatherND took it from."""
        ...

    def scatter_nd_keep(self, m: T, index: T) -> T:
        """``m`` with zeros where ScatterND wrote."""
        ...

    def gather_nd(self, a: T, index: T) -> T:
        """GatherND without batch axes."""
        ...

    def scatter_elements_keep(self, m: T, index: T, axis: int) -> T:
        """``m`` with zeros where ScatterElements wrote."""
        ...

    def gather_elements(self, a: T, index: T, axis: int) -> T:
        """GatherElements."""
        ...

    def moved_adjoint(
        self,
        m: T,
        like: T,
        op_type: str,
        operands: Sequence[T | None],
        attributes: Mapping[str, Any],
        *,
        opset: int,
        repeats: bool = False,
    ) -> T:
        """``m`` added up where an operation that only moves took it from.

        The operation itself moves the numbers of the entries of ``like``, counted from one: zero
        is what it puts between them.

        Args:
            m: Multiplier of what was moved.
            like: First operand of the operation.
            op_type: The operation.
            operands: The others.
            attributes: Its attributes.
            opset: Opset of the operation.
            repeats: Whether an entry may be moved to several places.
        """
        ...

    def keep_triangle(self, m: T, k: int, *, upper: bool) -> T:
        """Zero outside a triangle of the last two axes."""
        ...

    # --- rows: one a sample, at ``index`` [B] -----------------------------------------------------
    def take_rows(self, x: T, index: T, batch: int, axis: int) -> T:
        """These rows of ``x`` along ``axis``, which keeps length 1.

        Axes are counted from the right. Where ``axis`` is ``batch``, samples × tokens share it.
        """
        ...

    def take_shared_rows(self, x: T, index: T, batch: int, axis: int) -> T:
        """The same of an ``x`` without a batch axis: the rows become its axis ``batch``."""
        ...

    def put_rows(self, rows: T, like: T, index: T, batch: int, axis: int) -> T:
        """Zeros like ``like`` with ``rows`` in their places."""
        ...

    def row_index(self, index: T) -> T:
        """One number as the index of every sample [B]."""
        ...

    def row_column(self, index: T, column: int) -> T:
        """A column of an index [B, k]."""
        ...

    def row_within(self, index: T, like: T) -> T:
        """An index into samples × tokens, the first axis of ``like``, counted within the sample."""
        ...

    # --- books ---------------------------------------------------------------------------------
    def per_sample(self, relevance: T, batch_axis: int) -> T:
        """Sum per sample [B]; the batch is the outermost part of ``batch_axis``."""
        ...

    def arrange(
        self,
        relevance: T,
        *,
        batch_axis: int,
        token_axes: Sequence[int],
        feature_axes: Sequence[int],
    ) -> T:
        """Bring to [B, T, F]: named axes in this order, every other axis summed."""
        ...

    def check(self, a: T, place: str) -> None:
        """Where numbers are at hand: refuse NaN and infinity, naming the place."""
        ...
