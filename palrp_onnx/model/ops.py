"""What is true of every operation, whatever graph it stands in: the one table of traits.

A row names one kind, what else holds of the operation, which rule its axes follow and which
operands it takes entries from. The rest of the package asks with :func:`has` and never lists names
of operations to restate a trait; it may still look for one operation, or for a pattern of some.

The table lies in ``model``, below everything that reads it: passes and lowering rewrite by traits,
the analysis and the walk decide by them. Facts are those of the ONNX specification for operands as
models have them: a dropout is at rest. ``tests/rules/test_traits.py`` runs each, where it can, and
compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto

import onnx_ir as ir


class Trait(Flag):
    """What an operation is. The first part are kinds, of which it has one; it may have others."""

    # --- entry by entry
    #: A function of one operand; others, if any, are parameters of that function.
    UNARY = auto()
    #: The first operand in the type of the second, which gives nothing else.
    LIKE = auto()
    #: Add, subtract, average.
    SUM = auto()
    #: Multiply, divide.
    SCALE = auto()
    #: The largest or smallest of several.
    EXTREME = auto()
    #: One of two, by a condition.
    CHOICE = auto()
    #: Arithmetic that only whole numbers have.
    INTEGER = auto()
    #: Truth values of two numbers that are compared.
    COMPARISON = auto()
    #: Truth values of truth values.
    LOGIC = auto()
    #: Truth values of one number.
    TEST = auto()
    # --- entries that are moved
    #: The same entries in the same order, other axes.
    RESHAPE = auto()
    #: Axes of length one come or go.
    RANK = auto()
    #: Axes change places.
    PERMUTE = auto()
    #: Entries are repeated along axes.
    REPEAT = auto()
    #: A part is cut out, in order.
    CUT = auto()
    #: Entries are chosen by another operand.
    PICK = auto()
    #: The same entries in another order, which the attributes or lengths fix.
    REORDER = auto()
    #: Operands one after the other.
    JOIN = auto()
    #: Other entries are put around, or some at the ends are cut off.
    PAD = auto()
    #: Entries are written into others.
    SCATTER = auto()
    #: Entries on one side of a diagonal are zero.
    TRIANGLE = auto()
    #: Entries between entries.
    RESIZE = auto()
    # --- several entries make one
    #: One number of all entries along axes.
    REDUCTION = auto()
    #: The place of the largest or smallest.
    ARGUMENT = auto()
    #: Entries, or places, counted along an axis.
    COUNT = auto()
    #: Lengths of axes.
    LENGTH = auto()
    #: Sums of products of the entries of two operands.
    PRODUCT = auto()
    #: A product with a second operand of weights, to which a third may be added.
    LAYER = auto()
    #: A network of its own, step by step.
    RECURRENT = auto()
    #: Windows of places.
    POOLING = auto()
    #: Shifted or scaled by statistics.
    NORMALISATION = auto()
    #: Entries along an axis compete.
    SOFTMAX = auto()
    # --- others
    #: Numbers of few bits are made of real ones.
    QUANTISE = auto()
    #: Real numbers are made of those of few bits.
    DEQUANTISE = auto()
    #: New numbers, that are no function of the entries of an operand.
    SOURCE = auto()
    #: Rows of real numbers are made of whole ones.
    ENCODE = auto()

    # --- what else holds
    #: The result is zero where all real operands are; where the first is, if the others are its
    #: parameters or it is a product or quotient. With attributes as they usually are.
    ZERO = auto()
    #: Linear in its real operands together, but for parameters.
    LINEAR = auto()
    #: Operands are aligned from the right, and repeated where they are one long.
    BROADCASTS = auto()
    #: The same numbers in the same places, perhaps of another type.
    RETYPES = auto()
    #: With a factor and an offset, quantising is written with it: numbers stay what they are, but
    #: for their last digits and for bounds.
    ROUNDS = auto()
    #: Makes whole numbers of whole numbers, one of one: an index stays an index.
    WHOLE = auto()
    #: The largest of the entries decides: very low ones are switched off.
    CHOOSES = auto()
    #: The second operand is what a model has learnt.
    LEARNT = auto()
    #: Reads [batch, channels, places …].
    CHANNELS = auto()
    #: Measures a whole tensor.
    MEASURES = auto()


#: Several real operands entry by entry.
NARY = Trait.SUM | Trait.SCALE | Trait.EXTREME | Trait.CHOICE
#: Real functions entry by entry.
ELEMENTWISE = Trait.UNARY | NARY
#: Every entry of the result is one of the first operand.
MOVES = (
    Trait.RESHAPE
    | Trait.RANK
    | Trait.PERMUTE
    | Trait.REPEAT
    | Trait.CUT
    | Trait.PICK
    | Trait.REORDER
)


class AxisRule(Enum):
    """How axes of a result follow from axes of the operands; read by ``analysis.dims``."""

    #: Aligned from the right, entry by entry.
    ALIGNED = auto()
    #: Aligned from the right; which entries of an axis make which is not said.
    LOOSE = auto()
    RESHAPED = auto()
    RANKED = auto()
    PERMUTED = auto()
    REPEATED = auto()
    CUT = auto()
    JOINED = auto()
    GATHERED = auto()
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
    #: Along the axis ``axis`` alone, or from it on.
    NORMALISED = auto()
    ACCUMULATED = auto()


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        traits: Its kind and what else holds of it.
        axes: How axes of the result follow from axes of the operands.
        moved: Operands whose entries the result is made of, ``None`` for all, where it moves any.
        index: The operand that says which entries are meant, where there is one.
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
        """Whether the result is made of entries of an operand."""
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
_RECURRENT = Row(T.RECURRENT | T.LEARNT)
_FIRST = (0,)
_CHANNELS = T.NORMALISATION | T.CHANNELS

#: Every operation of the standard that is known, by name.
_STANDARD: dict[str, Row] = {
    "Abs": Row(T.UNARY | T.ZERO | T.WHOLE, A.ALIGNED),
    "Acos": _FUNCTION,
    "Acosh": _FUNCTION,
    "Add": Row(T.SUM | T.ZERO | T.LINEAR | T.BROADCASTS | T.WHOLE, A.ALIGNED),
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
    "Compress": Row(T.PICK | T.ZERO | T.LINEAR, moved=_FIRST),
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
    "Gather": Row(T.PICK | T.ZERO | T.LINEAR, A.GATHERED, moved=_FIRST, index=1),
    "GatherElements": Row(T.PICK | T.ZERO | T.LINEAR, moved=_FIRST, index=1),
    "GatherND": Row(T.PICK | T.ZERO | T.LINEAR, A.GATHERED_ND, moved=_FIRST, index=1),
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
    "Transpose": Row(T.PERMUTE | T.ZERO | T.LINEAR, A.PERMUTED, moved=_FIRST),
    "Trilu": Row(T.TRIANGLE | T.ZERO | T.LINEAR),
    "Unsqueeze": Row(T.RANK | T.ZERO | T.LINEAR, A.RANKED, moved=_FIRST),
    "Upsample": Row(T.RESIZE | T.ZERO | T.LINEAR),
    "Where": Row(T.CHOICE | T.ZERO | T.LINEAR | T.BROADCASTS, A.ALIGNED, moved=(1, 2)),
    "Xor": _LOGIC,
}
#: Those of other domains that may be left after lowering; all others are lowered or refused.
_MICROSOFT: dict[str, Row] = {
    "DequantizeLinear": Row(T.DEQUANTISE),
    "QuantizeLinear": Row(T.QUANTISE),
}
#: By (domain, operation).
TABLE: dict[tuple[str, str], Row] = {
    **{("", name): row for name, row in _STANDARD.items()},
    **{("com.microsoft", name): row for name, row in _MICROSOFT.items()},
}
#: What is known of an operation that the table does not have.
UNKNOWN = Row(Trait(0))
_BY_NAME = {key: row.traits.value for key, row in TABLE.items()}


def row_of(node: ir.Node) -> Row:
    """The row of a node's operation; :data:`UNKNOWN` where there is none."""
    return TABLE.get((node.domain, node.op_type), UNKNOWN)


def has(node: ir.Node, traits: Trait) -> bool:
    """Whether a node's operation has any of ``traits``; a union is best made once, beforehand."""
    return bool(_BY_NAME.get((node.domain, node.op_type), 0) & traits.value)
