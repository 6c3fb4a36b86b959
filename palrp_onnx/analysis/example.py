"""Synthetic examples of the input of a graph, for trial runs.

They are made from the graph alone, as roles are a property of the file. Arrays of the caller are
never read; their shapes are used where the graph leaves lengths open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import isqrt, prod
from typing import Any

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.inputs import InputRoles, lookups, table_rows
from palrp_onnx.analysis.masking import MOVING
from palrp_onnx.analysis.roles import Role
from palrp_onnx.errors import ModelError, RoleError
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.open import Model
from palrp_onnx.model.ops import has
from palrp_onnx.model.signature import GraphInput
from palrp_onnx.model.values import is_float
from palrp_onnx.types import Array

Shapes = Mapping[str, tuple[int, ...]]
#: Tokens of the first and of the second example where the graph leaves their number open.
LENGTH, OTHER_LENGTH = 11, 7
#: Tokens at the end that are masked.
PADDED = 2
#: Number of samples: axes of length 1 could not be distinguished after a reshape.
SAMPLES = 2
#: Length of a waveform where the graph leaves it open.
SOUND = 8000
#: The shortest waveform from which roles are judged.
_LEAST_SOUND = 4 * LENGTH
#: The most entries that one input of an example may have.
MAX_NUMBERS = 1 << 26
#: Image sizes to try after those that the model's own tables suggest.
_SIZES = (224, 384, 256, 336, 512, 448, 128, 96, 64, 48, 32, 28, 16, 8)
#: Entry that switches a score off in a mask that is added to scores unchanged.
_OFF = -1e4


@dataclass(frozen=True)
class Form:
    """Settings of one synthetic example.

    Attributes:
        samples: Number of samples where the batch is free.
        length: Number of tokens where it is free.
        size: Height and width of an image in pixels where they are free.
        few: Whether all ids are the same low number, for tables that are read at offsets and
            differences.
        seed: Seed of the random numbers.
        shapes: Shapes by input, for lengths that the graph leaves open.
        whole: Whether the number of tokens is taken from ``shapes`` too.
        masked: Whether the last tokens are masked.
        longer: Whether short lengths from ``shapes`` are multiplied, as one token shows nothing.
        batches: Axis of samples by input, where it is not the first; ``None`` where there is none.
    """

    samples: int = SAMPLES
    length: int = LENGTH
    size: int = 0
    few: bool = False
    seed: int = 0
    shapes: Shapes | None = None
    whole: bool = False
    masked: bool = True
    longer: bool = False
    batches: Mapping[str, int | None] = field(default_factory=dict)


def forms(model: Model, shapes: Shapes | None = None) -> Iterator[Form]:
    """Settings to try, in order; the first ones show most about roles.

    Args:
        model: The model.
        shapes: Shapes of arrays that the model is known to accept, if there are any.
    """
    sizes = [0] if shapes is not None else list(_sizes(model))
    if shapes is not None:
        yield Form(shapes=shapes, longer=True)
        yield Form(samples=1, shapes=shapes, longer=True)
    for size in sizes:
        yield Form(size=size, shapes=shapes)
        yield Form(samples=1, size=size, shapes=shapes)
        if any(not is_float(v) for v in model.graph.inputs):
            yield Form(size=size, shapes=shapes, few=True)
            yield Form(samples=1, size=size, shapes=shapes, few=True)
    if shapes is not None:
        yield Form(shapes=shapes, whole=True)
        yield Form(samples=1, shapes=shapes, whole=True)
        yield Form(samples=1, shapes=shapes, whole=True, few=True)


def none_runs(problem: str) -> RoleError:
    """The error where the model runs on no example; ``problem`` is the error of the last one."""
    return RoleError(
        "The model runs on no synthetic example",
        hint=f"Give one with --example FILE.npz. The error of the last one: {problem}",
    )


def another(form: Form) -> Form:
    """Settings of another example: other numbers, padding and, where it is free, length."""
    length = form.length if form.whole else OTHER_LENGTH
    return replace(form, length=length, seed=form.seed + 1, masked=not form.masked)


def make_feeds(model: Model, roles: InputRoles, form: Form) -> dict[str, Array]:
    """The arrays of one example, by input."""
    values = {v.name or "": v for v in model.graph.inputs}
    shapes: dict[str, tuple[int, ...]] = {}
    named: dict[str, int] = {}
    sums = _sums(model.inputs, form.shapes or {})

    def last(each: GraphInput) -> tuple[bool, bool, bool]:
        """Inputs that are known best, and real ones, fix shared symbols; sums follow."""
        return (
            not sums.keys().isdisjoint(each.shape or ()),
            each.name not in form.batches,
            not _real(each),
        )

    for each in sorted(model.inputs, key=last):
        shapes[each.name] = _shape(each, form, named, sums)
    return {
        s.name: _array(values[s.name], s.dtype, shapes[s.name], roles.facts[s.name].role, form)
        for s in model.inputs
    }


def _array(
    value: ir.Value, kind: np.dtype[Any], shape: tuple[int, ...], role: Role, form: Form
) -> Array:
    generator = np.random.default_rng(form.seed)
    match role:
        case Role.MASK:
            made = _mask(value, shape, form)
        case Role.POSITION:
            made = np.broadcast_to(np.arange(shape[-1]) if shape else 0, shape)
        case Role.SEGMENT:
            half = np.arange(shape[-1]) >= shape[-1] // 2 if shape else np.zeros(())
            made = np.broadcast_to(half, shape)
        case _:
            made = _content(value, kind, shape, form, generator)
    return np.ascontiguousarray(made).astype(kind)


def _mask(value: ir.Value, shape: tuple[int, ...], form: Form) -> Array:
    """Ones, zeros for padding at the end; 0 and `_OFF` where the mask is added unchanged."""
    mask = np.ones(shape)
    if form.masked and shape and shape[-1] > PADDED:
        mask[..., shape[-1] - PADDED :] = 0
    if value.dtype is not None and is_float(value) and _added_unchanged(value):
        return np.where(mask > 0, 0.0, _OFF)
    return mask


def _added_unchanged(value: ir.Value) -> bool:
    """Whether an input is an operand of an ``Add``, moved or cast at most."""
    uses = uses_of([value], lambda n, _: n.outputs if has(n, MOVING) else ())
    return any(node.op_type == "Add" for node, _ in uses)


def _content(
    value: ir.Value,
    kind: np.dtype[Any],
    shape: tuple[int, ...],
    form: Form,
    generator: np.random.Generator,
) -> Array:
    found = lookups(value)
    if not found:
        if is_float(value):
            return generator.normal(size=shape)
        if kind.kind == "b" or not shape:
            return np.ones(shape)
        return generator.integers(0, np.iinfo(kind).max if kind.itemsize == 1 else 100, size=shape)
    rows = max(map(table_rows, found)) or _depth(found)
    if form.few:
        return np.full(shape, min(1, rows - 1))
    ids = generator.integers(min(5, rows - 1), rows, size=shape)
    if shape and not form.masked and shape[-1] > 2 * PADDED:  # usual ids of special tokens, too
        special = np.minimum(np.arange(PADDED), rows - 1)
        ids[..., -PADDED:] = special
    return ids


def _depth(found: list[ir.Node]) -> int:
    """Length of the one-hot vectors that encode the indices."""
    for node in found:
        depth = node.inputs[1].const_value if node.op_type == "OneHot" and node.inputs[1] else None
        if depth is not None:
            return int(depth.numpy().ravel()[0])
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if source is not None and source.op_type == "Equal":
            for each in source.inputs:
                if each is not None and each.const_value is not None:
                    return int(each.const_value.size)
    return 2


def _real(signature: GraphInput) -> bool:
    """Whether an input is computed with as real numbers: it is real, or holds pixels as bytes."""
    return signature.dtype.kind == "f" or signature.dtype.itemsize == 1


#: With more symbols, sums of their lengths are not looked for.
_FEW_SYMBOLS = 32
#: Symbol → two symbols whose lengths add up to its own.
_Sums = Mapping[str, tuple[str, str]]


def _sums(inputs: Sequence[GraphInput], shapes: Shapes) -> _Sums:
    """Symbols that are sums: their text says so, or lengths of known shapes do without doubt.

    A mask of cached and new tokens is as long as both.
    """
    dims = [each.shape or () for each in inputs]
    symbols = {d for shape in dims for d in shape if isinstance(d, str)}
    lengths: dict[str, int] = {}
    for each in inputs:
        shape, known = each.shape or (), shapes.get(each.name, ())
        if len(known) == len(shape):
            named = zip(shape[1:], known[1:], strict=True)
            lengths.update((d, size) for d, size in named if isinstance(d, str))
    found = {}
    for symbol in symbols:
        first, _, second = (term.strip() for term in symbol.partition("+"))
        if {first, second} <= symbols:
            found[symbol] = (first, second)
        elif symbol in lengths and len(lengths) <= _FEW_SYMBOLS:
            others = combinations(sorted(lengths.keys() - {symbol}), 2)
            pairs = [(a, b) for a, b in others if lengths[a] + lengths[b] == lengths[symbol]]
            if len(pairs) == 1:
                found[symbol] = pairs[0]
    return found


def _shape(
    signature: GraphInput, form: Form, named: dict[str, int], sums: _Sums
) -> tuple[int, ...]:
    """Shape of an input: fixed lengths; for free axes those of the form, one a symbol."""
    dims = signature.shape
    known = (form.shapes or {}).get(signature.name)
    if dims is None:
        return known or (form.samples, form.length)
    real = _real(signature)
    image, sound = len(dims) == 4 and real, len(dims) == 2 and signature.dtype.kind == "f"
    batch = form.batches.get(signature.name, 0)
    second = 3 if image else SOUND if sound else form.length
    free = {0: form.samples, 1: second} if batch == 0 else {batch: form.samples}
    shape = []
    for k, dim in enumerate(dims):
        own = free.get(k, form.size if image and form.size else form.length)
        if known is not None and len(known) == len(dims) and (form.whole or (real and k != batch)):
            own = known[k] if k != batch or form.samples == 1 else form.samples
            if k != batch and form.longer and own:
                own *= -(-(_LEAST_SOUND if sound else LENGTH) // own)
        if isinstance(dim, str):
            terms = sums.get(dim, ())
            if terms and named.keys() >= set(terms) and not form.whole:
                own = sum(named[term] for term in terms)
            own = named.setdefault(dim, own)
        shape.append(dim if isinstance(dim, int) and dim > 0 else own)
    if prod(shape) > MAX_NUMBERS:
        raise ModelError(
            f"An example of shape {tuple(shape)} has more than {MAX_NUMBERS} entries",
            place=f"input {signature.name}",
            hint="Give a smaller one with --example FILE.npz.",
        )
    return tuple(shape)


def _sizes(model: Model) -> Iterator[int]:
    """Image sizes to try; 0 where the model takes no image."""
    if not any(s.dtype.itemsize and len(s.shape or ()) == 4 for s in model.inputs):
        yield 0
        return
    kernels = [
        n.attributes.get_ints("kernel_shape", ()) for n in model.graph if n.op_type == "Conv"
    ]
    patch = kernels[0][0] if kernels and kernels[0] else 1
    for value in model.graph.initializers.values():
        shape = value.shape.numpy() if value.shape is not None else ()
        if len(shape) == 3 and shape[0] == 1:
            for prefix in range(3):
                side = isqrt(max(shape[1] - prefix, 0))
                if side > 1 and side * side == shape[1] - prefix:
                    yield side * patch
    yield from _SIZES
