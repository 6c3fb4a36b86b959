"""The table of operations: what is true of each of them in any graph.

A row has one kind, further traits, the rule of the operation's axes, and the operands whose entries
it moves. The rest of the package tests traits with :func:`has` and lists no names of operations
where a trait would do; it may still look for a single operation or for a pattern of several.

The table is in ``model``, below all packages that read it: passes and lowerings rewrite by traits,
the analysis and the walk decide by them. Its facts are those of the ONNX specification in
inference, where ``Dropout`` does nothing. ``tests/rules/test_traits.py`` compares them with runs of
the operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto

import onnx_ir as ir


class Trait(Flag):
    """Kinds and further traits of operations. An operation has one kind and any further traits."""

    # --- entry by entry
    #: A function of one operand; others, if any, are parameters of that function.
    UNARY = auto()
    #: The first operand, cast to the type of the second.
    LIKE = auto()
    #: Add, subtract, average.
    SUM = auto()
    #: Multiply, divide.
    SCALE = auto()
    #: The largest or smallest of several.
    EXTREME = auto()
    #: One of two, by a condition.
    CHOICE = auto()
    #: Arithmetic of integers alone.
    INTEGER = auto()
    #: Truth values of a comparison of two numbers.
    COMPARISON = auto()
    #: Truth values of truth values.
    LOGIC = auto()
    #: Truth values of one number.
    TEST = auto()
    # --- entries are moved
    #: The same entries in the same row-major order, with other axes.
    RESHAPE = auto()
    #: Axes of length one are added or removed.
    RANK = auto()
    #: Axes are permuted.
    PERMUTE = auto()
    #: Entries are repeated along axes.
    REPEAT = auto()
    #: A part of the entries, in order.
    CUT = auto()
    #: Entries that another operand selects.
    SELECT = auto()
    #: The same entries in another order, which attributes or lengths determine.
    REORDER = auto()
    #: Concatenated operands.
    JOIN = auto()
    #: Entries are added at the ends, or removed there.
    PAD = auto()
    #: Entries of one operand overwrite entries of another.
    SCATTER = auto()
    #: Entries on one side of a diagonal are zero.
    TRIANGLE = auto()
    #: Interpolated entries.
    RESIZE = auto()
    # --- several entries become one
    #: One number of all entries along axes.
    REDUCTION = auto()
    #: Index of the largest or smallest entry.
    ARGUMENT = auto()
    #: Entries, or their indices, counted along an axis.
    COUNT = auto()
    #: Lengths of axes.
    LENGTH = auto()
    #: Sums of products of the entries of two operands.
    PRODUCT = auto()
    #: A product with weights as second operand, plus an optional bias.
    LAYER = auto()
    #: A recurrent network.
    RECURRENT = auto()
    #: Windows of places.
    POOLING = auto()
    #: Shifted or scaled by statistics.
    NORMALISATION = auto()
    #: Entries along an axis compete.
    SOFTMAX = auto()
    # --- others
    #: Quantised numbers from real ones.
    QUANTISE = auto()
    #: Real numbers from quantised ones.
    DEQUANTISE = auto()
    #: Numbers that do not depend on the entries of an operand.
    SOURCE = auto()
    #: Vectors of real numbers from integers.
    ENCODE = auto()

    # --- further traits
    #: The result is zero where all real operands are zero; for products, quotients and functions
    #: with parameters, where the first operand is. With usual attributes.
    ZERO = auto()
    #: Linear in its real operands together, parameters aside.
    LINEAR = auto()
    #: Operands are aligned from the right, and repeated along axes of length one.
    BROADCASTS = auto()
    #: The same numbers in the same places; the type may change.
    RETYPES = auto()
    #: Part of quantising, together with a factor and an offset: changes only the last digits of
    #: numbers, and clips them.
    ROUNDS = auto()
    #: Maps integers to integers element-wise: an index stays an index.
    WHOLE = auto()
    #: The largest entries decide: very negative ones are switched off.
    CHOOSES = auto()
    #: The second operand is usually learnt weights.
    LEARNT = auto()
    #: Reads [batch, channels, places …].
    CHANNELS = auto()
    #: Computes statistics of a whole tensor.
    MEASURES = auto()


#: Element-wise operations of several real operands.
NARY = Trait.SUM | Trait.SCALE | Trait.EXTREME | Trait.CHOICE
#: Element-wise real operations.
ELEMENTWISE = Trait.UNARY | NARY
#: Operations whose result consists of entries of the first operand.
MOVES = (
    Trait.RESHAPE
    | Trait.RANK
    | Trait.PERMUTE
    | Trait.REPEAT
    | Trait.CUT
    | Trait.SELECT
    | Trait.REORDER
)

#: Operations after which an index is an index still, moved or with an offset.
SAME_NUMBERS = (
    Trait.RETYPES
    | Trait.RESHAPE
    | Trait.RANK
    | Trait.PERMUTE
    | Trait.REPEAT
    | Trait.SUM
    | Trait.JOIN
)


class AxisRule(Enum):
    """How axes of a result follow from axes of the operands; ``analysis/dims.py`` reads it."""

    #: Aligned from the right, entry by entry.
    ALIGNED = auto()
    #: Aligned from the right; it is unknown which entries depend on which.
    LOOSE = auto()
    RESHAPED = auto()
    RANKED = auto()
    PERMUTED = auto()
    REPEATED = auto()
    CUT = auto()
    JOINED = auto()
    GATHERED = auto()
    GATHERED_ELEMENTS = auto()
    GATHERED_ND = auto()
    SCATTERED = auto()
    REDUCED = auto()
    MATRICES = auto()
    GEMM = auto()
    EINSUM = auto()
    #: [batch, new channels, windows …].
    CONVOLVED = auto()
    #: [batch, channels, windows …].
    POOLED = auto()
    #: Over the axis ``axis`` alone, or over it and all later ones.
    NORMALISED = auto()
    ACCUMULATED = auto()
    #: [steps, batch, features] → [steps, directions, batch, units], or without steps.
    RECURRENT = auto()
    #: Some entries along ``axis``, which all entries along it decide.
    CHOSEN = auto()


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        traits: Its kind and further traits.
        axes: How axes of the result follow from axes of the operands.
        moved: Indices of the operands whose entries the result consists of; ``None`` for all
            operands, () for none.
        index: Index of the operand that selects entries, if there is one.
    """

    traits: Trait
    axes: AxisRule = AxisRule.LOOSE
    moved: tuple[int, ...] | None = ()
    index: int | None = None

    @property
    def kind(self) -> Trait:
        """Its kind alone."""
        return self.traits & KINDS

    def moves(self, operand: int) -> bool:
        """Whether the result consists of entries of this operand, among others."""
        return self.moved is None or operand in self.moved


#: All kinds.
KINDS = Trait(2 * Trait.ENCODE.value - 1)

T, A = Trait, AxisRule
_FUNCTION = Row(T.UNARY, A.ALIGNED)
_VANISHING = Row(T.UNARY | T.ZERO, A.ALIGNED)
_RETYPING = T.UNARY | T.ZERO | T.LINEAR | T.RETYPES
_COMPARING = Row(T.COMPARISON | T.BROADCASTS, A.ALIGNED)
_LOGIC = Row(T.LOGIC | T.BROADCASTS, A.ALIGNED)
_BITS = Row(T.INTEGER | T.BROADCASTS | T.WHOLE, A.ALIGNED)
_REDUCING = Row(T.REDUCTION, A.REDUCED)
_REDUCING_ZERO = Row(T.REDUCTION | T.ZERO, A.REDUCED)
_RANDOM = Row(T.SOURCE)
_RECURRENT = Row(T.RECURRENT | T.LEARNT, A.RECURRENT)
_FIRST = (0,)
_CHANNELS = T.NORMALISATION | T.CHANNELS

#: Operations of the ONNX standard, by name.
_STANDARD: dict[str, Row] = {
    "Abs": Row(T.UNARY | T.ZERO | T.WHOLE, A.ALIGNED),
    "Acos": _FUNCTION,
    "Acosh": _FUNCTION,
    "Add": Row(T.SUM | T.ZERO | T.LINEAR | T.BROADCASTS | T.WHOLE, A.ALIGNED),
    "AffineGrid": Row(T.PRODUCT | T.ZERO | T.LINEAR),
    "And": _LOGIC,
    "ArgMax": Row(T.ARGUMENT, A.REDUCED),
    "ArgMin": Row(T.ARGUMENT, A.REDUCED),
    "Asin": _VANISHING,
    "Asinh": _VANISHING,
    "Atan": _VANISHING,
    "Atanh": _VANISHING,
    "AveragePool": Row(T.POOLING | T.CHANNELS | T.ZERO | T.LINEAR, A.POOLED),
    "BatchNormalization": Row(_CHANNELS),
    "Bernoulli": _RANDOM,
    "BitShift": _BITS,
    "BitwiseAnd": _BITS,
    "BitwiseNot": Row(T.INTEGER | T.WHOLE, A.ALIGNED),
    "BitwiseOr": _BITS,
    "BitwiseXor": _BITS,
    "BlackmanWindow": _RANDOM,
    "Cast": Row(_RETYPING | T.WHOLE, A.ALIGNED),
    "CastLike": Row(T.LIKE | T.ZERO | T.LINEAR, A.ALIGNED),
    "Ceil": _VANISHING,
    "Celu": _VANISHING,
    "CenterCropPad": Row(T.PAD | T.ZERO | T.LINEAR, moved=_FIRST),
    "Clip": Row(T.UNARY | T.ROUNDS | T.WHOLE, A.ALIGNED),
    "Compress": Row(T.SELECT | T.ZERO | T.LINEAR, moved=_FIRST),
    "Concat": Row(T.JOIN | T.ZERO | T.LINEAR, A.JOINED, moved=None),
    "ConstantOfShape": _RANDOM,
    "Conv": Row(T.LAYER | T.CHANNELS | T.LEARNT | T.ZERO, A.CONVOLVED),
    "ConvTranspose": Row(T.LAYER | T.CHANNELS | T.LEARNT | T.ZERO, A.CONVOLVED),
    "Cos": _FUNCTION,
    "Cosh": _FUNCTION,
    "CumSum": Row(T.COUNT | T.ZERO | T.LINEAR, A.ACCUMULATED),
    "DepthToSpace": Row(T.REORDER | T.CHANNELS | T.ZERO | T.LINEAR, moved=_FIRST),
    "DequantizeLinear": Row(T.DEQUANTISE),
    "Div": Row(T.SCALE | T.ZERO | T.BROADCASTS | T.WHOLE, A.ALIGNED),
    "Dropout": Row(_RETYPING, A.ALIGNED),
    "DynamicQuantizeLinear": Row(T.QUANTISE | T.MEASURES),
    "Einsum": Row(T.PRODUCT | T.ZERO, A.EINSUM),
    "Elu": _VANISHING,
    "Equal": _COMPARING,
    "Erf": _VANISHING,
    "Exp": _FUNCTION,
    "Expand": Row(T.REPEAT | T.ZERO | T.LINEAR, A.REPEATED, moved=_FIRST),
    "EyeLike": _RANDOM,
    "Flatten": Row(T.RESHAPE | T.ZERO | T.LINEAR, A.RESHAPED, moved=_FIRST),
    "Floor": _VANISHING,
    "GRU": _RECURRENT,
    "Gather": Row(T.SELECT | T.ZERO | T.LINEAR, A.GATHERED, moved=_FIRST, index=1),
    "GatherElements": Row(T.SELECT | T.ZERO | T.LINEAR, A.GATHERED_ELEMENTS, moved=_FIRST, index=1),
    "GatherND": Row(T.SELECT | T.ZERO | T.LINEAR, A.GATHERED_ND, moved=_FIRST, index=1),
    "Gelu": _VANISHING,
    "Gemm": Row(T.LAYER | T.LEARNT | T.ZERO, A.GEMM),
    "GlobalAveragePool": Row(T.REDUCTION | T.CHANNELS | T.ZERO | T.LINEAR, A.POOLED),
    "GlobalMaxPool": Row(T.REDUCTION | T.CHANNELS | T.ZERO, A.POOLED),
    "Greater": _COMPARING,
    "GreaterOrEqual": _COMPARING,
    "GroupNormalization": Row(_CHANNELS),
    "HammingWindow": _RANDOM,
    "HannWindow": _RANDOM,
    "HardSigmoid": _FUNCTION,
    "HardSwish": _VANISHING,
    "Hardmax": Row(T.SOFTMAX, A.NORMALISED),
    "Identity": Row(_RETYPING | T.WHOLE, A.ALIGNED),
    "InstanceNormalization": Row(_CHANNELS),
    "IsInf": Row(T.TEST, A.ALIGNED),
    "IsNaN": Row(T.TEST, A.ALIGNED),
    "LSTM": _RECURRENT,
    "LayerNormalization": Row(T.NORMALISATION, A.NORMALISED),
    "LeakyRelu": _VANISHING,
    "Less": _COMPARING,
    "LessOrEqual": _COMPARING,
    "Log": _FUNCTION,
    "LogSoftmax": Row(T.SOFTMAX | T.CHOOSES, A.NORMALISED),
    "LpNormalization": Row(T.NORMALISATION | T.ZERO, A.NORMALISED),
    "LpPool": Row(T.POOLING | T.CHANNELS | T.ZERO, A.POOLED),
    "MatMul": Row(T.PRODUCT | T.LEARNT | T.ZERO, A.MATRICES),
    "Max": Row(T.EXTREME | T.ZERO | T.BROADCASTS | T.WHOLE, A.ALIGNED),
    "MaxPool": Row(T.POOLING | T.CHANNELS | T.ZERO, A.POOLED),
    "Mean": Row(T.SUM | T.ZERO | T.LINEAR | T.BROADCASTS, A.ALIGNED),
    "MeanVarianceNormalization": Row(T.NORMALISATION),
    "Min": Row(T.EXTREME | T.ZERO | T.BROADCASTS | T.WHOLE, A.ALIGNED),
    "Mish": _VANISHING,
    "Mod": Row(T.UNARY | T.ZERO | T.BROADCASTS | T.WHOLE, A.ALIGNED),
    "Mul": Row(T.SCALE | T.ZERO | T.BROADCASTS | T.WHOLE, A.ALIGNED),
    "Multinomial": _RANDOM,
    "Neg": Row(T.UNARY | T.ZERO | T.LINEAR | T.WHOLE, A.ALIGNED),
    "NonZero": Row(T.COUNT),
    "Not": Row(T.LOGIC, A.ALIGNED),
    "OneHot": Row(T.ENCODE, index=0),
    "Or": _LOGIC,
    "PRelu": Row(T.UNARY | T.ZERO | T.BROADCASTS, A.ALIGNED),
    "Pad": Row(T.PAD | T.ZERO | T.LINEAR, A.CUT, moved=(0, 2)),
    "Pow": Row(T.UNARY | T.ZERO | T.BROADCASTS, A.ALIGNED),
    "QuantizeLinear": Row(T.QUANTISE),
    "RMSNormalization": Row(T.NORMALISATION | T.ZERO, A.NORMALISED),
    "RNN": _RECURRENT,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "Range": _RANDOM,
    "Reciprocal": _FUNCTION,
    "ReduceL1": _REDUCING_ZERO,
    "ReduceL2": _REDUCING_ZERO,
    "ReduceLogSum": _REDUCING,
    "ReduceLogSumExp": Row(T.REDUCTION | T.CHOOSES, A.REDUCED),
    "ReduceMax": Row(T.REDUCTION | T.ZERO | T.CHOOSES, A.REDUCED),
    "ReduceMean": Row(T.REDUCTION | T.ZERO | T.LINEAR, A.REDUCED),
    "ReduceMin": _REDUCING_ZERO,
    "ReduceProd": _REDUCING_ZERO,
    "ReduceSum": Row(T.REDUCTION | T.ZERO | T.LINEAR, A.REDUCED),
    "ReduceSumSquare": _REDUCING_ZERO,
    "Relu": _VANISHING,
    "Reshape": Row(T.RESHAPE | T.ZERO | T.LINEAR, A.RESHAPED, moved=_FIRST),
    "Resize": Row(T.RESIZE | T.ZERO | T.LINEAR),
    "ReverseSequence": Row(T.REORDER | T.ZERO | T.LINEAR, moved=_FIRST),
    "Round": Row(T.UNARY | T.ZERO | T.ROUNDS, A.ALIGNED),
    "ScatterElements": Row(T.SCATTER | T.ZERO | T.LINEAR, A.SCATTERED, moved=(0, 2), index=1),
    "ScatterND": Row(T.SCATTER | T.ZERO | T.LINEAR, A.SCATTERED, moved=(0, 2), index=1),
    "Selu": _VANISHING,
    "Shape": Row(T.LENGTH),
    "Shrink": _VANISHING,
    "Sigmoid": _FUNCTION,
    "Sign": _VANISHING,
    "Sin": _VANISHING,
    "Sinh": _VANISHING,
    "Size": Row(T.LENGTH),
    "Slice": Row(T.CUT | T.ZERO | T.LINEAR, A.CUT, moved=_FIRST),
    "Softmax": Row(T.SOFTMAX | T.CHOOSES, A.NORMALISED),
    "Softplus": _FUNCTION,
    "Softsign": _VANISHING,
    "SpaceToDepth": Row(T.REORDER | T.CHANNELS | T.ZERO | T.LINEAR, moved=_FIRST),
    "Split": Row(T.CUT | T.ZERO | T.LINEAR, A.CUT, moved=_FIRST),
    "Sqrt": _VANISHING,
    "Squeeze": Row(T.RANK | T.ZERO | T.LINEAR, A.RANKED, moved=_FIRST),
    "Sub": Row(T.SUM | T.ZERO | T.LINEAR | T.BROADCASTS | T.WHOLE, A.ALIGNED),
    "Sum": Row(T.SUM | T.ZERO | T.LINEAR | T.BROADCASTS, A.ALIGNED),
    "Swish": _VANISHING,
    "Tan": _VANISHING,
    "Tanh": _VANISHING,
    "ThresholdedRelu": _VANISHING,
    "Tile": Row(T.REPEAT | T.ZERO | T.LINEAR, A.REPEATED, moved=_FIRST),
    "TopK": Row(T.SELECT | T.ZERO | T.CHOOSES, A.CHOSEN, moved=_FIRST),
    "Transpose": Row(T.PERMUTE | T.ZERO | T.LINEAR, A.PERMUTED, moved=_FIRST),
    "Trilu": Row(T.TRIANGLE | T.ZERO | T.LINEAR),
    "Unsqueeze": Row(T.RANK | T.ZERO | T.LINEAR, A.RANKED, moved=_FIRST),
    "Where": Row(T.CHOICE | T.ZERO | T.LINEAR | T.BROADCASTS, A.ALIGNED, moved=(1, 2)),
    "Xor": _LOGIC,
}
#: Operations of ONNX Runtime that may remain after lowering; all others are lowered or refused.
_MICROSOFT: dict[str, Row] = {
    "DequantizeLinear": Row(T.DEQUANTISE),
    "QuantizeLinear": Row(T.QUANTISE),
}
#: (domain, operation) → row.
TABLE: dict[tuple[str, str], Row] = {
    **{("", name): row for name, row in _STANDARD.items()},
    **{("com.microsoft", name): row for name, row in _MICROSOFT.items()},
}
#: Row of operations that are not in the table.
UNKNOWN = Row(Trait(0))
_BY_NAME = {key: row.traits.value for key, row in TABLE.items()}


def row_of(node: ir.Node) -> Row:
    """The row of a node's operation; :data:`UNKNOWN` where there is none."""
    return TABLE.get((node.domain, node.op_type), UNKNOWN)


def has(node: ir.Node, traits: Trait) -> bool:
    """Whether a node's operation has any of ``traits``. Make unions once, outside of loops."""
    return bool(_BY_NAME.get((node.domain, node.op_type), 0) & traits.value)
