"""A model file, opened safely: parsed, bounded, fingerprinted and brought to one plain form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from palrp_onnx.errors import InputError, ModelError
from palrp_onnx.model.changes import Blank, Changes
from palrp_onnx.model.checks import check_size, check_tensors, check_values
from palrp_onnx.model.external_weights import read_slim
from palrp_onnx.model.plain import PLAIN, Rewriting, from_file, make_plain
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
        changes = make_plain(proto, path, from_file(path, at_least))
        check_values(proto.graph, str(path))
        return cls(
            path=path,
            sha256=_digest(files),
            opset=opset,
            producer=" ".join(filter(None, (proto.producer_name, proto.producer_version))),
            nodes=nodes,
            inputs=tuple(map(_signature, proto.graph.inputs)),
            outputs=outputs,
            changes=changes,
            proto=proto,
        )

    def rewritten(self, rewriting: Rewriting) -> Model:
        """The model after its graph was rewritten, in place, and brought to its plain form again.

        Itself where nothing was changed.
        """
        done = rewriting(self.proto)
        if not done:
            return self
        changes = self.changes.copy()
        changes.add(done)
        changes.add(make_plain(self.proto, self.path, PLAIN))
        return replace(self, changes=changes)

    def copy(self) -> Model:
        """The same model with a graph of its own."""
        return replace(self, proto=self.proto.clone(), changes=self.changes.copy())

    def at_opset(self, opset: int) -> Model:
        """The same model in this opset or a later one, itself where it is."""
        return self if self.graph_opset >= opset else Model.open(self.path, at_least=opset)

    def cut_to(self, names: Sequence[str]) -> Model:
        """The same inputs, and nothing in the graph but what values of these names depend on."""
        graph = ir.convenience.extract(self.graph, self.graph.inputs, names)
        return replace(self, proto=ir.Model(graph, ir_version=self.proto.ir_version))


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
