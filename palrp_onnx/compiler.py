"""The explanation as a graph: forward and relevance nodes in one ONNX model.

The relevance pass is the same walk with the same rules, run with the language that emits nodes. The
target is chosen inside the graph, by inputs that default to the predicted class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import onnx_ir as ir

from palrp_onnx.attribution import LEDGER_ENTRIES
from palrp_onnx.errors import TargetError, UnsupportedError
from palrp_onnx.graph.patches import patch_size
from palrp_onnx.graph.roles import Role
from palrp_onnx.planning import Planned
from palrp_onnx.relevance.ledger import entry_name
from palrp_onnx.relevance.sinks import (
    Sink,
    bring_to_tokens,
    check_reduction,
    gather_sinks,
    sink_numbers,
)
from palrp_onnx.relevance.walk import Caught, walk
from palrp_onnx.tensor.emit import Emit

#: First opset whose operations the emitted nodes are written in.
OPSET = 13
#: Prefix of metadata keys, and of everything added to the graph.
PREFIX = "palrp_onnx"
CONTENT, POSITION, TOTAL = "relevance_content", "relevance_position", "relevance_total"
SITES, LEDGER = "relevance_sites", "relevance_ledger"
TARGET, AGAINST, TARGET_POSITION = "target", "target_against", "target_position"


@dataclass(frozen=True)
class Settings:
    """What is fixed when a graph is compiled.

    Attributes:
        positions: How sinks reduce to one number a unit.
        ledger: Whether the account is kept.
        features: Whether sinks and content come out feature by feature as well.
        portable: Whether only operations of the ONNX standard are used.
    """

    positions: str = "relu"
    ledger: bool = True
    features: bool = False
    portable: bool = False


def compile_graph(planned: Planned, settings: Settings) -> ir.Model:
    """Append the relevance pass to the model that was planned, in place.

    Outputs: the model's own, then ``relevance_content``, ``relevance_position`` and
    ``relevance_total`` [B, units], ``relevance_sites`` [B, sites, units] (signed),
    ``relevance_ledger`` [B, entries]; with ``features`` also ``content`` and
    ``site/LAYER/PART`` [B, tokens, features]. What the rows mean is in ``metadata_props``.

    Raises:
        UnsupportedError: The opset is older than the emitted operations, or a rule cannot be
            emitted for this graph.
    """
    check_reduction(settings.positions)
    opset = planned.analysis.model.opset
    if opset < OPSET:
        raise UnsupportedError(f"Opset {opset} is older than {OPSET}", hint="Use --engine numpy.")
    return _Compiler(planned, settings).run()


class _Compiler:
    def __init__(self, planned: Planned, settings: Settings) -> None:
        self._plan = planned.plan
        self._analysis = planned.analysis
        self._sites = planned.sites
        self._explained = explained = planned.explained
        self._settings = settings
        self._graph = self._analysis.model.graph
        if not settings.portable:
            self._analysis.model.proto.opset_imports.setdefault("com.microsoft", 1)
        ranks = {v: len(shape) for v, shape in self._analysis.shapes.items()}
        source = next(v for v in self._graph.inputs if v.name == explained)
        self._op = Emit(self._graph, source, ranks, portable=settings.portable)
        self._op.batch = self._op.dims(source, [0])

    def run(self) -> ir.Model:
        seed = self._seed()
        caught = walk(self._op, self._plan, lambda value: value, seed)
        caught.require(self._explained)
        sinks = gather_sinks(self._op, self._sites, caught.positions)
        self._outputs(caught, sinks)
        self._describe(sinks)
        return self._analysis.model.proto

    # --- the target -------------------------------------------------------------------------------
    def _input(self, name: str) -> ir.Value:
        """An int64 input [B] that may be left out; −1 by default."""
        value = ir.val(name, const_value=ir.tensor(np.array([-1], np.int64), name=name))
        self._graph.inputs.append(value)
        self._graph.register_initializer(value)
        value.shape = ir.Shape([None])
        self._op.declare(value, 1)
        return self._op.integers("Expand", value, self._op.batch)

    def _chosen(self, given: ir.Value, default: ir.Value) -> ir.Value:
        negative = self._op.node("Less", [given, self._op.constant(0)], 1, dtype=ir.DataType.BOOL)
        return self._op.integers("Where", negative, default, given)

    def _seed(self) -> ir.Value:
        """+1 at the target, −1 at what it is held against, in the shape of the output."""
        op, output = self._op, self._plan.output
        rank = op.rank(output)
        if rank not in (2, 3):
            raise TargetError(
                f"An output of {rank} axes has no classes", hint="Use --engine numpy."
            )
        place = self._place() if rank == 3 else None
        logits = output
        if place is not None:
            logits = op.sum(op.mul(output, op.unsqueeze(place, [-1])), [1], keepdims=False)
        best = op.integers("ArgMax", logits, axis=-1, keepdims=0)
        classes = op.dims(output, [-1])
        chosen = op.one_hot(self._chosen(self._input(TARGET), best), classes)
        against = self._input(AGAINST)
        absent = op.node("Less", [against, op.constant(0)], 1, dtype=ir.DataType.BOOL)
        held = op.one_hot(against, classes)
        held = op.choose(op.flag_column(absent), op.real(0.0), held)
        seed = op.sub(chosen, held)
        if place is None:
            return seed
        return op.mul(op.unsqueeze(seed, [1]), op.unsqueeze(place, [-1]))

    def _place(self) -> ir.Value:
        """One-hot rows [B, T]: the position asked for, or the last unmasked one."""
        op = self._op
        length = op.dims(self._plan.output, [1])
        numbers = op.integers(
            "Range", op.constant(0), op.integers("Squeeze", length), op.constant(1)
        )
        last = op.integers("Expand", op.integers("Sub", length, op.constant([1])), op.batch)
        masks = self._analysis.inputs.named(Role.MASK)
        mask = next((v for v in self._graph.inputs if v.name in masks and op.rank(v) == 2), None)
        if mask is not None:
            flags, places = (
                op.node("Cast", [v], op.rank(v), to=ir.DataType.FLOAT) for v in (mask, numbers)
            )
            # Where nothing is unmasked the small second term leaves the last place.
            rising = op.add(op.mul(flags, op.shift(places, 1.0)), op.scale(places, 1e-6))
            last = op.integers("ArgMax", rising, axis=-1, keepdims=0)
        return op.one_hot(self._chosen(self._input(TARGET_POSITION), last), length)

    # --- the outputs ------------------------------------------------------------------------------
    def _outputs(self, caught: Caught[ir.Value], sinks: Sequence[Sink]) -> None:
        op = self._op
        content = self._units(caught.content[self._explained])
        summed = op.sum(content, [2], keepdims=False)
        signed = [self._aligned(op.sum(s.relevance, [2], keepdims=False), summed) for s in sinks]
        position = self._reduced(sinks, summed)
        total = {"sum": op.add(summed, position), "content": summed, "position": position}
        self._publish(CONTENT, summed)
        self._publish(POSITION, position)
        self._publish(TOTAL, total[self._plan.preset.map])
        if signed:
            rows = [op.unsqueeze(s, [1]) for s in signed]
            self._publish(SITES, op.concat(rows, 1))
        if self._settings.ledger:
            self._publish(LEDGER, self._ledger(caught.ledger))
        if self._settings.features:
            self._publish("content", self._raw(caught.content[self._explained]))
            for sink in sinks:
                self._publish(f"site/{sink.name}", sink.relevance)
            for name, relevance in caught.content.items():
                if name != self._explained:
                    self._publish(f"input/{name}", self._raw(relevance))

    def _publish(self, name: str, value: ir.Value) -> None:
        rank = self._op.rank(value)
        copy = self._op.node("Identity", [value], rank)
        copy.name = name
        copy.shape = ir.Shape([None] * rank)
        self._graph.outputs.append(copy)

    def _raw(self, relevance: ir.Value) -> ir.Value:
        return bring_to_tokens(self._op, relevance, self._op.rank(relevance))

    def _units(self, relevance: ir.Value) -> ir.Value:
        """[B, units, F]; an image's patches in row-major order, summed."""
        op = self._op
        if op.rank(relevance) != 4:
            return self._raw(relevance)
        sides = patch_size(self._analysis, self._explained)
        if sides is None:
            raise UnsupportedError("The image is not cut into patches", hint="Use --engine numpy.")
        plane = op.sum(relevance, [1])
        mean = op.node("AveragePool", [plane], 4, kernel_shape=list(sides), strides=list(sides))
        whole = op.scale(mean, float(sides[0] * sides[1]))
        shape = op.integers("Concat", op.batch, op.constant([-1]), op.constant([1]), axis=0)
        return op.reshape(whole, shape, 3)

    def _aligned(self, tokens: ir.Value, units: ir.Value) -> ir.Value:
        """The last rows of [B, T], as many as there are units: prefix tokens are cut off."""
        op = self._op
        start = op.integers("Sub", op.dims(tokens, [1]), op.dims(units, [1]))
        far = op.constant([np.iinfo(np.int64).max])
        return op.node("Slice", [tokens, start, far, op.constant([1])], 2)

    def _reduced(self, sinks: Sequence[Sink], units: ir.Value) -> ir.Value:
        """One number a unit from all sinks, as :func:`reduce_sinks` has it."""
        op = self._op
        if self._plan.preset.map == "content" or not sinks:
            return op.zeros_like(units)
        first, *rest = sink_numbers(op, sinks, self._settings.positions)
        total = self._aligned(first, units)
        for numbers in rest:
            total = op.add(total, self._aligned(numbers, units))
        return total

    def _entries(self, ledger: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        named = {entry_name(entry, self._explained): v for entry, v in ledger.items()}
        return {name: named[name] for name in [*LEDGER_ENTRIES, *named] if name in named}

    def _ledger(self, ledger: Mapping[str, ir.Value]) -> ir.Value:
        entries = self._entries(ledger)
        self._ledger_names = list(entries)
        return self._op.concat([self._op.unsqueeze(v, [1]) for v in entries.values()], 1)

    def _describe(self, sinks: Sequence[Sink]) -> None:
        model = self._analysis.model
        facts = {
            "version": version("palrp-onnx"),
            "method": self._plan.preset.name,
            "positions": self._settings.positions,
            "source_sha256": model.sha256,
            "output": self._plan.output.name or "",
            "input": self._explained,
            "sites": json.dumps([[s.kind, s.layer, s.part] for s in sinks]),
            "ledger": json.dumps(self._ledger_names if self._settings.ledger else []),
        }
        props = model.proto.metadata_props
        props.update({f"{PREFIX}.{key}": str(value) for key, value in facts.items()})
