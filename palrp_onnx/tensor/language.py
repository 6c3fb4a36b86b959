"""The small tensor language in which rules and the walk are written.

A back end gives these operations a meaning: numbers (``numpy``) or graph nodes (``onnx``). No
operation returns a shape: one that depends on a shape takes a tensor that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Required, TypedDict, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """How the window of a convolution moves over an image: one number for every spatial axis.

    Attributes:
        strides: Steps of the window.
        pads: Zeros at the start of every axis, then at the end of every axis; or ``SAME_UPPER`` or
            ``SAME_LOWER``: as many as the windows need beyond the image, half at each end, an odd
            one at the end or at the start.
        dilations: Steps between the entries of the window.
        group: Number of groups of channels, each convolved separately.
        output_padding: Places of the image after the last window.
    """

    strides: Sequence[int]
    pads: Sequence[int] | str
    dilations: Sequence[int]
    group: int
    output_padding: Sequence[int]


class Pooling(TypedDict, total=False):
    """How pooling moves over an image: attributes of ``MaxPool``, left out for their defaults."""

    kernel_shape: Required[Sequence[int]]
    strides: Sequence[int]
    pads: Sequence[int]
    dilations: Sequence[int]
    ceil_mode: int
    auto_pad: str
    count_include_pad: int


class Interpolation(TypedDict, total=False):
    """How an image is resized: attributes of ``Resize``, left out for their defaults."""

    antialias: int
    coordinate_transformation_mode: str
    cubic_coeff_a: float
    exclude_outside: int
    mode: str
    nearest_mode: str


@dataclass(frozen=True)
class Movement:
    """An operation of the standard that only moves numbers, to be repeated on other numbers.

    Attributes:
        op_type: The operation.
        opset: Its opset.
        attributes: Its attributes.
        repeats: Whether it may move one entry to several places.
    """

    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    repeats: bool = False


#: ``step(op, states, entries)``: the next states, and results, written in the language ``op``.
RecurrenceStep = Callable[
    ["Language[Any]", Sequence[Any], Sequence[Any]], tuple[Sequence[Any], Sequence[Any]]
]


class Language(Protocol[T]):
    """The operations that a rule may use.

    ``m`` is a multiplier; of ``like`` only the shape matters. The adjoint of a linear map A is Aᵀ.
    """

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

    def gated(self, m: T, y: T) -> T:
        """m where y > 0, else 0."""
        ...

    def exp(self, a: T) -> T:
        """e to the power a."""
        ...

    def function(self, op_type: str, a: T, *numbers: float, **attributes: float) -> T:
        """An element-wise function of the standard, by its name; ``numbers`` are its operands."""
        ...

    def ratio(self, y: T, x: T, at_zero: float) -> T:
        """y / x, and ``at_zero`` where x = 0: the only stabilised division."""
        ...

    def relevance(self, x: T, m: T) -> T:
        """x ∘ m, and 0 where m = 0, so that infinite mask entries with no multiplier count as 0."""
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
        """The same numbers in a type that can hold their squares."""
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
        """Adjoint of a convolution without bias whose input is shaped like ``like``."""
        ...

    def conv(self, image: T, weight: T, like: T, window: Window) -> T:
        """A convolution without bias, with as many places as ``like``."""
        ...

    def interpolation(
        self, x: T, y: T, axis: int, scale: float | None, interpolation: Interpolation
    ) -> T:
        """Resizing along one axis, from ``x`` to ``y``, as a matrix [entries of y, entries of x].

        ``scale`` is the factor that the operation was given; the ratio of the lengths if ``None``.
        """
        ...

    def averaging(self, x: T, axis: int, pooling: Pooling) -> T:
        """Average pooling along one axis of ``x`` as a matrix [entries of the result, of x]."""
        ...

    def max_pool_adjoint(self, m: T, x: T, pooling: Pooling) -> T:
        """``m`` added up at the first largest entry of ``x`` in every window."""
        ...

    # --- reductions ----------------------------------------------------------------------------
    def sum(self, a: T, axes: Sequence[int], *, keepdims: bool = True) -> T:
        """Sum over axes."""
        ...

    def mean(self, a: T, axes: Sequence[int]) -> T:
        """Mean over axes, which stay with length 1."""
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

    # --- recurrences ---------------------------------------------------------------------------
    def scan(
        self, step: RecurrenceStep, states: Sequence[T], along: Sequence[T], *, reverse: bool
    ) -> tuple[Sequence[T], Sequence[T]]:
        """A recurrence along the first axis.

        Args:
            step: Gets the states, and one entry of each of ``along``, without its first axis. It
                may read tensors from outside.
            states: States before the first step.
            along: Tensors whose first axes have one length.
            reverse: Whether the last entries come first.

        Returns:
            States after the last step; results of all steps, in the order of ``along``.
        """
        ...

    def within(self, lengths: T, like: T) -> T:
        """1 at the first ``lengths`` [B] steps of each sample, else 0: [T, 1, B, 1].

        Steps are the first axis of ``like``.
        """
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

    def turn(self, a: T) -> T:
        """The entries of the first axis in reverse order."""
        ...

    def chunks(self, a: T, count: int, axis: int) -> tuple[T, ...]:
        """Cut into so many equal pieces along an axis."""
        ...

    def slice_adjoint(
        self, m: T, like: T, starts: T, ends: T, axes: T | None, steps: T | None
    ) -> T:
        """Zeros shaped like ``like``, with ``m`` where the slice was taken."""
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

    def scatter_nd_cleared(self, m: T, index: T) -> T:
        """``m`` with zeros where ScatterND wrote."""
        ...

    def gather_nd(self, a: T, index: T) -> T:
        """GatherND without batch axes."""
        ...

    def scatter_elements_cleared(self, m: T, index: T, axis: int) -> T:
        """``m`` with zeros where ScatterElements wrote."""
        ...

    def gather_elements(self, a: T, index: T, axis: int) -> T:
        """GatherElements."""
        ...

    def moved_adjoint(
        self,
        m: T,
        like: T,
        movement: Movement,
        operands: Sequence[T | None],
    ) -> T:
        """Every entry of ``m`` added to the entry of ``like`` that ``movement`` moved there.

        The movement is repeated on the numbers 1, 2, … in the shape of ``like``: the result says
        where every entry came from, and is 0 for padding.

        Args:
            m: Multiplier of the result of the movement.
            like: First operand of the movement.
            movement: The operation.
            operands: Its other operands.
        """
        ...

    def triangle(self, m: T, k: int, *, upper: bool) -> T:
        """``m`` with zeros outside of a triangle of the last two axes."""
        ...

    def row(self, table: T, index: int) -> T:
        """One row of a table."""
        ...

    # --- rows: one for each sample, at ``index`` [B] ----------------------------------------------
    def take_rows(self, x: T, index: T, batch: int, axis: int) -> T:
        """These rows of ``x`` along ``axis``, which then has length 1.

        Axes are counted from the right. If ``axis`` is ``batch``, it holds samples × tokens.
        """
        ...

    def take_shared_rows(self, x: T, index: T, batch: int, axis: int) -> T:
        """The same for an ``x`` without a batch axis: the rows become its axis ``batch``."""
        ...

    def put_rows(self, rows: T, like: T, index: T, batch: int, axis: int) -> T:
        """Zeros shaped like ``like``, with ``rows`` in their places."""
        ...

    def row_index(self, index: T) -> T:
        """A scalar index repeated for every sample [B]."""
        ...

    def row_column(self, index: T, column: int) -> T:
        """A column of an index [B, k]."""
        ...

    def row_within(self, index: T, like: T) -> T:
        """The token of an index into samples × tokens, the first axis of ``like``."""
        ...

    # --- ledger and sinks ----------------------------------------------------------------------
    def samples_first(self, a: T, axis: int, inner: int) -> T:
        """An axis of [… × B × inner] entries as [B × … × inner]; ``axis`` from the right."""
        ...

    def per_sample(self, relevance: T, batch_axis: int) -> T:
        """Sum per sample [B]; the batch is the outermost factor of ``batch_axis``."""
        ...

    def arrange(
        self,
        relevance: T,
        *,
        batch_axis: int,
        token_axes: Sequence[int],
        feature_axes: Sequence[int],
    ) -> T:
        """Relevance as [B, T, F]: batch, token and feature axes, every other axis summed.

        One number without axes, as an input of unknown rank may be, is one token.
        """
        ...

    def unfold(self, a: T, like: T, batch_axis: int, token_axes: Sequence[int]) -> T:
        """[B, T] along the axes of ``like`` that :meth:`arrange` joins, in the order of ``like``.

        The axis of samples, if it holds no tokens, may hold heads as well: each gets an equal
        share. Axes are counted from the right.
        """
        ...

    def check(self, a: T, place: str) -> None:
        """Refuse NaN and infinity, naming the place; does nothing while a graph is built."""
        ...
