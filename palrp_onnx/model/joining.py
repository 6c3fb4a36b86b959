"""An encoder and a decoder in two files are read as one graph, as if exported in one file.

The decoder reads the encoder's states as an input of real numbers, and often the encoder's mask.
Which file is which, and which input receives what, follows from types, declared shapes and uses.
The nodes of both files stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.errors import ModelError
from palrp_onnx.model.follow import uses_of, values_before
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float

#: A declared length: a number, a symbol, or unknown.
_Length = int | str | None


#: Key in ``ir.Model.meta``: the files of a joined graph.
_PARTS = "parts"


class Part(NamedTuple):
    """One file of a joined graph.

    Attributes:
        path: The file.
        inputs: Name of each of its inputs → name in the joined graph of what it receives.
        values: Name in the joined graph of each value that it computes → name in the file.
    """

    path: Path
    inputs: Mapping[str, str]
    values: Mapping[str, str]


def parts_in(model: ir.Model) -> tuple[Part, ...]:
    """The files of a joined graph, in the order in which they run; none of a graph of one file."""
    parts: tuple[Part, ...] = model.meta.get(_PARTS, ())
    return parts


class _Wire(NamedTuple):
    """An output of the encoder, and the input of the decoder that receives it."""

    given: ir.Value
    received: ir.Value


def join(models: Sequence[ir.Model], paths: Sequence[Path], place: str) -> ir.Model:
    """One graph of an encoder and a decoder, in either order; both are used up.

    Inputs of the encoder keep their names. An input of the decoder with the name of an input or
    output of the encoder gets the prefix ``decoder_``, and other values of the encoder with a name
    that the decoder uses get ``encoder/``.

    Raises:
        ModelError: Neither reads what the other yields, or it is open which, or their opsets
            differ.
    """
    encoder, decoder, wire = _wired(models, place)
    if not encoder.functions.keys().isdisjoint(decoder.functions):
        passes.InlinePass()(encoder)
    for domain, version in encoder.opset_imports.items():
        if decoder.opset_imports.setdefault(domain, version) != version:
            raise ModelError(
                "Encoder and decoder are of different opsets",
                place=f"{place}: {domain or 'ai.onnx'} {version}, {decoder.opset_imports[domain]}",
                hint="Export both with one opset.",
            )
    own = {v: v.name or "" for each in models for v in _values(each.graph)}
    _name_lengths(encoder.graph, decoder.graph, wire)
    mask = _mask(encoder.graph, decoder.graph, wire)
    _name_values(encoder.graph, decoder.graph)
    before, after = _parts(encoder.graph), _parts(decoder.graph)
    casts = []
    received_by = {own[v]: v.name or "" for v in after.inputs}
    for given, received in filter(None, (wire, mask)):
        after.inputs.remove(received)
        received_by[own[received]] = given.name or ""
        if given.dtype is not received.dtype:
            cast = ir.node("Cast", [given], {"to": received.dtype})
            cast.outputs[0].name = f"decoder/{given.name}"
            casts.append(cast)
            given = cast.outputs[0]
        ir.convenience.replace_all_uses_with(received, given)
        after.outputs[:] = [given if value is received else value for value in after.outputs]
    graph = ir.Graph(
        [*before.inputs, *after.inputs],
        list(dict.fromkeys((*after.outputs, *before.outputs))),
        nodes=[*before.nodes, *casts, *after.nodes],
        initializers=[*before.initializers, *after.initializers],
        opset_imports=decoder.opset_imports,
        name=decoder.graph.name,
    )
    joined = ir.Model(
        graph,
        ir_version=max(encoder.ir_version, decoder.ir_version),
        producer_name=decoder.producer_name,
        producer_version=decoder.producer_version,
        functions=[*encoder.functions.values(), *decoder.functions.values()],
    )
    files = dict(zip(map(id, models), paths, strict=True))
    read = {own[v]: v.name or "" for v in before.inputs}
    joined.meta[_PARTS] = tuple(
        Part(files[id(model)], inputs, _computed(pieces, own))
        for model, inputs, pieces in ((encoder, read, before), (decoder, received_by, after))
    )
    return joined


def _computed(pieces: _Pieces, own: Mapping[ir.Value, str]) -> dict[str, str]:
    return {v.name: own[v] for node in pieces.nodes for v in node.outputs if v.name}


# --- which file is which -------------------------------------------------------------------------
def _wired(models: Sequence[ir.Model], place: str) -> tuple[ir.Model, ir.Model, _Wire]:
    """Encoder, decoder, and how the second reads the states of the first.

    Of both orders the one counts in which more lengths are equal numbers, as the width of states.
    """
    found: list[tuple[int, ir.Model, ir.Model, _Wire]] = []
    first, second = models
    for encoder, decoder in ((first, second), (second, first)):
        wires = list(_wires(encoder.graph, decoder.graph))
        best = max((_agreement(wire) for wire in wires), default=0)
        wires = [wire for wire in wires if _agreement(wire) == best]
        if wires:
            found.append((best, encoder, decoder, _latest(wires, place)))
    found.sort(key=lambda each: -each[0])
    if not found:
        raise ModelError(
            "Neither of the two files has an input for what the other yields, so they are no "
            "encoder and decoder",
            place=place,
        )
    if len(found) > 1 and found[0][0] == found[1][0]:
        raise ModelError("Each of the two files could be the encoder of the other", place=place)
    return found[0][1:]


def _wires(encoder: ir.Graph, decoder: ir.Graph) -> Iterator[_Wire]:
    """Real outputs and inputs of three axes or more whose declared lengths fit."""
    for received in decoder.inputs:
        for given in encoder.outputs:
            if received.is_initializer() or not (is_float(received) and is_float(given)):
                continue
            one, other = _lengths(given), _lengths(received)
            if one is None or other is None or len(one) != len(other) or len(one) < 3:
                continue
            numbers = ((a, b) for a, b in zip(one, other, strict=True))
            if all(a == b for a, b in numbers if isinstance(a, int) and isinstance(b, int)):
                yield _Wire(given, received)


def _agreement(wire: _Wire) -> int:
    """How many lengths of both are the same number."""
    one, other = _lengths(wire.given) or (), _lengths(wire.received) or ()
    return sum(a == b for a, b in zip(one, other, strict=True) if isinstance(a, int))


def _latest(wires: list[_Wire], place: str) -> _Wire:
    """The wire of the last layer: what it gives depends on what all others give."""
    received = {wire.received for wire in wires}
    last = [w for w in wires if {o.given for o in wires} <= set(values_before([w.given]))]
    if len(received) > 1 or not last:
        raise ModelError(
            "It is open which states of the encoder the decoder reads",
            place=f"{place}: {', '.join(f'{w.given.name} → {w.received.name}' for w in wires)}",
            hint="Export both with one output of states and one input for them.",
        )
    return last[0]


def _mask(encoder: ir.Graph, decoder: ir.Graph, wire: _Wire) -> _Wire | None:
    """The encoder's mask, and the decoder's input for it; ``None`` where one of them has none.

    It has the first two axes of the states, and does not index a table.
    """
    states = (_lengths(wire.received) or ())[:2]
    given, received = (
        [
            v
            for v in graph.inputs
            if not v.is_initializer() and _lengths(v) == states and not _indexes(v)
        ]
        for graph in (encoder, decoder)
    )
    if not _told_apart(decoder, states):
        return None
    if len(given) == len(received) == 1 and is_float(given[0]) == is_float(received[0]):
        return _Wire(given[0], received[0])
    return None


def _told_apart(decoder: ir.Graph, states: tuple[_Length, ...]) -> bool:
    """Whether declared lengths tell tokens of the encoder from those of the decoder."""
    ids = [v for v in decoder.inputs if _indexes(v)]
    return None not in states and all(_lengths(v) != states for v in ids)


def _indexes(value: ir.Value) -> bool:
    """Whether the entries of an input are indices of rows of a table."""

    def onward(node: ir.Node, index: int) -> Iterable[ir.Value]:
        moved = index == 0 and has(node, Trait.RETYPES | Trait.RESHAPE | Trait.RANK)
        return node.outputs if moved or node.op_type == "Identity" else ()

    return any(n.op_type == "Gather" and k == 1 for n, k in uses_of([value], onward))


# --- lengths and names ---------------------------------------------------------------------------
def _lengths(value: ir.Value) -> tuple[_Length, ...] | None:
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def _name_lengths(encoder: ir.Graph, decoder: ir.Graph, wire: _Wire) -> None:
    """Give lengths of both graphs one name where they are the same, and else different names."""
    pairs = list(zip(_lengths(wire.given) or (), _lengths(wire.received) or (), strict=True))
    same = {b: a for a, b in pairs if isinstance(b, str) and a is not None}
    fixed = {a: b for a, b in pairs if isinstance(a, str) and isinstance(b, int)}
    known, theirs = _symbols(encoder), _symbols(decoder)
    new: dict[str, _Length] = {}
    for symbol in sorted(theirs & known - same.keys()):
        new[symbol] = _free(symbol, "decoder_", theirs | known)
    _rename_lengths(decoder, {**new, **same})
    _rename_lengths(encoder, fixed)


def _symbols(graph: ir.Graph) -> set[str]:
    return {d for v in _values(graph) for d in _lengths(v) or () if isinstance(d, str)}


def _free(name: str, prefix: str, taken: Collection[str | None]) -> str:
    """``name`` with a prefix, repeated until it is not taken."""
    while name in taken:
        name = f"{prefix}{name}"
    return name


def _rename_lengths(graph: ir.Graph, new: Mapping[str, _Length]) -> None:
    for value in _values(graph):
        lengths = _lengths(value)
        if lengths is not None and not new.keys().isdisjoint(lengths):
            value.shape = ir.Shape([new.get(d, d) if isinstance(d, str) else d for d in lengths])


def _name_values(encoder: ir.Graph, decoder: ir.Graph) -> None:
    """Give values and nodes of both graphs different names."""
    public = {v.name for v in (*encoder.inputs, *encoder.outputs)}
    own = {v.name for v in _values(decoder)}
    for value in decoder.inputs:
        if value.name in public:
            value.name = _free(value.name or "", "decoder_", public | own)
    _rename(_values(encoder), {v.name for v in _values(decoder)})
    _rename(list(encoder.all_nodes()), {node.name for node in decoder.all_nodes()})


def _rename(named: Sequence[ir.Value] | Sequence[ir.Node], taken: Collection[str | None]) -> None:
    """Give a prefix to names that are taken."""
    used = {*taken, *(each.name for each in named)}
    for each in named:
        if each.name and each.name in taken:
            each.name = _free(each.name, "encoder/", used)
            used.add(each.name)


def _values(graph: ir.Graph) -> list[ir.Value]:
    """Every value with a name, of subgraphs too."""
    found: dict[ir.Value, None] = {}
    for each in (graph, *graph.subgraphs()):
        found.update(dict.fromkeys((*each.inputs, *each.initializers.values())))
    found.update((v, None) for node in graph.all_nodes() for v in node.outputs)
    return [value for value in found if value.name]


class _Pieces(NamedTuple):
    """What a graph consists of."""

    inputs: list[ir.Value]
    outputs: list[ir.Value]
    initializers: list[ir.Value]
    nodes: list[ir.Node]


def _parts(graph: ir.Graph) -> _Pieces:
    """Take a graph apart."""
    parts = _Pieces(
        list(graph.inputs), list(graph.outputs), list(graph.initializers.values()), list(graph)
    )
    graph.outputs.clear()
    graph.inputs.clear()
    graph.initializers.clear()
    graph.remove(parts.nodes)
    return parts
