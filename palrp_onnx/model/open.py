"""A model file, opened safely: parsed, bounded, fingerprinted and brought to one plain form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.errors import InputError, ModelError
from palrp_onnx.model.changes import Blank, Changes
from palrp_onnx.model.checks import check_size, check_tensors, check_values
from palrp_onnx.model.declared import infer_shapes, keep_what_binds
from palrp_onnx.model.external_weights import read_slim
from palrp_onnx.model.lowering import lower
from palrp_onnx.model.passes.bfloat16 import widen
from palrp_onnx.model.passes.branches import take_constant_branches
from palrp_onnx.model.passes.caches import take_out_caches, take_out_switches
from palrp_onnx.model.signature import GraphInput

MAX_FILE_BYTES = 2**31
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Model:
    """An opened model. ``graph`` is normalised: functions inlined, constants are initializers,
    fused operations primitive, aliases resolved; names of values stay as they are in the file.
    Inputs with a stored value are constants, and shapes follow from the inputs that are left.

    Attributes:
        opset: Opset of the file.
        sha256: Digest of the file, followed by its external data files in order of their names.
        nodes: Number of nodes of the file as it is on disk.
        changes: What was changed on the way from the file to ``graph``.
    """

    path: Path
    sha256: str
    opset: int
    producer: str
    nodes: int
    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphInput, ...]
    changes: Changes
    proto: ir.Model

    @property
    def lowered(self) -> Mapping[str, int]:
        """How many of each were changed, as :attr:`Changes.counts` has it."""
        return self.changes.counts

    @property
    def taken_out(self) -> tuple[Blank, ...]:
        """Inputs of the file that only matter to generation: caches, left empty."""
        return self.changes.blanks

    @property
    def folder(self) -> Path:
        """Where external data lies, links followed."""
        return self.path.resolve().parent

    @property
    def metadata(self) -> Mapping[str, str]:
        """Properties that tools have left in the file."""
        return self.proto.metadata_props

    @property
    def graph(self) -> ir.Graph:
        """The normalised main graph."""
        return self.proto.graph

    @property
    def graph_opset(self) -> int:
        """Opset of ``graph``, which may have been raised."""
        return self.proto.opset_imports.get("", 0)

    @classmethod
    def open(cls, path: str | Path, *, at_least: int = 0) -> Model:
        """Open ``path`` without loading external data.

        Args:
            path: The file.
            at_least: Opset that the graph is raised to where the file has an older one.

        Raises:
            InputError: The file is not there.
            ModelError: Not an ONNX model, too large, cannot be raised, or its external data leaves
                its folder.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError("There is no such model file", place=str(path))
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError("The model file is larger than 2 GiB", place=str(path))
        proto = parse_model(path)
        check_size(proto, str(path))
        files = check_tensors(proto, path.resolve())
        opset = proto.opset_imports.get("", proto.opset_imports.get("ai.onnx", 0))
        nodes, outputs = len(proto.graph), tuple(map(_signature, proto.graph.outputs))
        changes = Changes()
        normal = _normalise(proto, path, at_least, changes, as_stored=True)
        check_values(normal.graph, str(path))
        return cls(
            path=path,
            sha256=_digest(files),
            opset=opset,
            producer=" ".join(filter(None, (proto.producer_name, proto.producer_version))),
            nodes=nodes,
            inputs=tuple(map(_signature, normal.graph.inputs)),
            outputs=outputs,
            changes=changes,
            proto=normal,
        )

    def rewritten(self, counts: Mapping[str, int]) -> Model:
        """The same model after ``counts`` of operations were taken out of its graph by hand."""
        changes = self.changes.copy()
        changes.update(counts)
        normal = _normalise(self.proto, self.path, 0, changes)
        return replace(self, proto=normal, changes=changes)

    def copy(self, *, at_least: int = 0) -> Model:
        """The same model with a graph of its own, of this opset or a later one."""
        if self.graph_opset < at_least:
            return Model.open(self.path, at_least=at_least)
        return replace(self, proto=self.proto.clone(), changes=self.changes.copy())


def parse_model(path: Path) -> ir.Model:
    """The graph as it is in the file, weights left there.

    Raises:
        ModelError: The file is not an ONNX model.
    """
    file = path.resolve()
    try:
        model = ir.from_proto(onnx.load_model_from_string(read_slim(file)))
        ir.external_data.set_base_dir(model.graph, file.parent)
        ir.serde.serialize_model(model)  # text that is not UTF-8 is read, but cannot be written
    except Exception as error:  # the parser raises many kinds for a damaged file
        raise ModelError(
            "The file is not a readable ONNX model",
            place=str(path),
            hint=f"The parser says: {type(error).__name__}.",
        ) from error
    if not model.graph.outputs or len(model.graph) == 0:
        raise ModelError("The model has no nodes or no outputs", place=str(path))
    return model


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _signature(value: ir.Value) -> GraphInput:
    known = None if value.dtype == ir.DataType.UNDEFINED else value.dtype
    dtype = np.dtype(np.float32 if known is None else known.numpy())
    shape = value.shape
    if shape is None:
        return GraphInput(value.name or "", dtype, None)
    dims = tuple(d if isinstance(d, int) else d.value for d in shape)
    return GraphInput(value.name or "", dtype, dims)


def _raised(model: ir.Model, path: Path, opset: int, changes: Changes) -> ir.Model:
    """The same model in a newer opset."""
    before = model.opset_imports.get("", 0)
    if before >= opset:
        return model
    try:
        newer = onnx.version_converter.convert_version(ir.to_proto(model), opset)
        raised = ir.from_proto(newer)
    except Exception as error:  # the converter's own exception types are not public
        raise ModelError(
            f"The graph cannot be raised to opset {opset}, which is needed to compile it",
            place=str(path),
            hint="Use --engine numpy.",
        ) from error
    ir.external_data.set_base_dir(raised.graph, path.resolve().parent)
    changes.add(f"opset {before} to {opset}")
    return raised


def _normalise(
    model: ir.Model, path: Path, opset: int, changes: Changes, *, as_stored: bool = False
) -> ir.Model:
    """The graph in its plain form; what is changed on the way is written to ``changes``."""
    try:
        if as_stored:
            keep_what_binds(model)
        lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        model = lift(_inlined(model, changes)).model
        changes.take_out("switch", take_out_switches(model.graph))
        changes.add("If", take_constant_branches(model.graph))
        model = lift(passes.TopologicalSortPass()(model).model).model
        changes.add("bfloat16", widen(model.graph))
        changes.update(lower(model))
        caches = take_out_caches(model.graph, model.opset_imports.get("", 0))
        changes.take_out("cache", caches)
        if caches:
            passes.RemoveUnusedNodesPass()(model)
        model = lift(_raised(model, path, opset, changes)).model
        if not any(True for _ in model.graph.subgraphs()):
            # The pass cannot follow aliases that leave a subgraph; they stay, as nodes.
            model = passes.IdentityEliminationPass()(model).model
        infer_shapes(model)
        return model
    except ModelError:
        raise
    except Exception as error:  # a cycle, a dangling input, an attribute of the wrong type
        raise ModelError(
            "The graph is not well formed", place=str(path), hint=f"{type(error).__name__}: {error}"
        ) from error


def _inlined(model: ir.Model, changes: Changes) -> ir.Model:
    """Calls of the file's own functions, replaced by their nodes."""
    result = passes.InlinePass()(model)
    assert isinstance(result, passes.inliner.InlinePassResult)
    for (domain, name, _), count in result.id_count.items():
        changes.add(f"{domain}.{name}".lstrip("."), count)
    return result.model
