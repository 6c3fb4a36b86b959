"""A model file, opened safely: parsed, checked, hashed and brought to its plain form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from palrp_onnx.errors import ModelError, is_lack_of_memory
from palrp_onnx.hashing import Digest
from palrp_onnx.model.changes import Blank, Changes
from palrp_onnx.model.checks import check_size, check_tensors, check_values
from palrp_onnx.model.external_weights import read_slim
from palrp_onnx.model.joining import join, parts_in
from palrp_onnx.model.linked import follow_links
from palrp_onnx.model.locate import model_file, parts_of, real_files
from palrp_onnx.model.maps import look_through_maps
from palrp_onnx.model.plain import PLAIN, Rewriting, from_file, make_plain
from palrp_onnx.model.redefined import keep_last_constants
from palrp_onnx.model.reserved import free_reserved_names
from palrp_onnx.model.signature import GraphInput
from palrp_onnx.model.sparse import make_dense

MAX_FILE_BYTES = 2**31
#: Metadata of an explainer that names such inputs of it: see :func:`required`.
REQUIRED = "palrp_onnx.required"


@dataclass(frozen=True)
class Model:
    """An opened model.

    ``graph`` is plain: functions are inlined, constants are initializers, fused operations are
    primitive ones, aliases are resolved; values keep their names of the file. Inputs with an
    initializer are constants, and shapes follow from the other inputs.

    Attributes:
        path: The file, or the folder of an encoder and a decoder, which are read as one graph.
        opset: Opset of the file.
        producer: Name and version of the tool that wrote the file.
        sha256: Digest of the file, followed by its external data files in order of their names in
            the file; of an encoder and a decoder, of both files in this order.
        nodes: Number of nodes of the file as it is on disk.
        inputs: Inputs of the plain graph, without those that a compiled explainer adds for targets.
        outputs: Outputs of the file.
        changes: Log of the changes between the file and ``graph``.
        proto: The plain model.
        past: Whether inputs for cached keys and values are kept, for a decoding step.
        decided: What an input decided about the graph: see :mod:`palrp_onnx.model.branches`.
        ends: Names of the outputs that were joined to one: see :mod:`palrp_onnx.model.ends`.
        external: Files of external data, with links resolved, by their names in the file.
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
    past: bool = False
    decided: tuple[int, ...] = ()
    ends: tuple[str, str] | None = None
    external: Mapping[str, Path] = field(default_factory=dict)

    @property
    def lowered(self) -> Mapping[str, int]:
        """Number of changes of each kind: :attr:`Changes.counts`."""
        return self.changes.counts

    @property
    def removed(self) -> tuple[Blank, ...]:
        """Inputs of the file that were removed: caches and switches of generation."""
        return self.changes.blanks

    @property
    def folder(self) -> Path:
        """The folder of the file and its external data, with links resolved."""
        return self.files[0].parent

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or those of the encoder and the decoder, with links resolved."""
        return real_files(self.path)

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata properties of the file."""
        return self.proto.metadata_props

    @property
    def graph(self) -> ir.Graph:
        """The plain main graph."""
        return self.proto.graph

    @property
    def graph_opset(self) -> int:
        """Opset of ``graph``, which may have been raised."""
        return self.proto.opset_imports.get("", 0)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        at_least: int = 0,
        past: bool = False,
        digest: Digest | None = None,
    ) -> Model:
        """Open ``path`` without loading external data.

        Args:
            path: The file, or a folder with a single one, or with an encoder and a decoder.
            at_least: Opset to which the graph is raised where the file has an older one.
            past: Whether inputs for cached keys and values are kept, so that a decoding step after
                a past can be explained; by default they are removed, as if they were empty.
            digest: The digest of the files, without external data, where it was begun before.

        Raises:
            InputError: The file does not exist, or the folder holds none or several.
            ModelError: The file is not an ONNX model, is too large, cannot be raised to the opset,
                or has external data outside of its folder.
        """
        path = model_file(Path(path))
        for part in parts_of(path):
            if part.stat().st_size > MAX_FILE_BYTES:
                raise ModelError("The model file is larger than 2 GiB", place=str(part))
        own = real_files(path)
        digest = digest or Digest.of(own)
        proto, names = _read(path)
        check_size(proto, str(path))
        external = check_tensors(proto, own, names)
        digest = Digest([*external.values()], before=digest)
        opset = proto.opset_imports.get("", proto.opset_imports.get("ai.onnx", 0))
        nodes, outputs = len(proto.graph), tuple(map(_signature, proto.graph.outputs))
        changes = Changes.of({"joined": len(parts_in(proto))})
        changes.add(make_plain(proto, path, from_file(path, at_least, past=past)))
        check_values(proto.graph, str(path))
        return cls(
            path=path,
            sha256=digest.hex(),
            opset=opset,
            producer=" ".join(filter(None, (proto.producer_name, proto.producer_version))),
            nodes=nodes,
            inputs=tuple(map(_signature, _of_model(proto))),
            outputs=outputs,
            changes=changes,
            proto=proto,
            past=past,
            external=external,
        )

    def rewritten(self, rewriting: Rewriting) -> Model:
        """Run a pass over the graph, in place, and bring it to its plain form again.

        Returns:
            The model with the extended log; itself where the pass changed nothing.
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
        """The same model in this opset or a later one; itself where its opset is not older."""
        if self.graph_opset >= opset:
            return self
        return Model.open(self.path, at_least=opset, past=self.past)

    def with_past(self) -> Model:
        """The same model with its inputs for cached keys and values."""
        return Model.open(self.path, at_least=self.graph_opset, past=True)

    def cut_to(self, names: Sequence[str]) -> Model:
        """The same inputs, with only the nodes that the values of these names depend on."""
        graph = ir.convenience.extract(self.graph, self.graph.inputs, names)
        return replace(self, proto=ir.Model(graph, ir_version=self.proto.ir_version))


def _of_model(proto: ir.Model) -> list[ir.Value]:
    added = required(proto)
    return [value for value in proto.graph.inputs if value.name not in added]


def required(explainer: ir.Model) -> list[str]:
    """Inputs that a compiled explainer adds for targets, where they have no default."""
    return explainer.metadata_props.get(REQUIRED, "").split(",")


def parse_model(path: Path) -> ir.Model:
    """The model as it is in the file, without reading its weights.

    Raises:
        ModelError: The file is not an ONNX model, or a sparse tensor cannot be made dense.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[ir.Model, dict[str, str]]:
    """The model as it is in its files, and the names that `follow_links` has replaced.

    Raises:
        ModelError: A file cannot be read, or two do not make one model.
    """
    if not path.is_dir():
        return _read_file(path)
    (first, names), (second, further) = map(_read_file, parts_of(path))
    if len({each.parent for each in real_files(path)}) > 1:
        raise ModelError(
            "Encoder and decoder are links into different folders",
            place=str(path),
            hint="Copy both with their external data into one folder: cp -L.",
        )
    try:
        return join((first, second), parts_of(path), str(path)), {**names, **further}
    except ModelError:
        raise
    except Exception as error:  # an input without a name, a value that nothing yields
        raise ModelError(
            "The graph of the encoder or the decoder is not well formed",
            place=str(path),
            hint=f"{type(error).__name__}: {error}",
        ) from error


def _read_file(path: Path) -> tuple[ir.Model, dict[str, str]]:
    file = path.resolve()
    try:
        proto = onnx.load_model_from_string(read_slim(file))
        names = follow_links(proto, path)
        keep_last_constants(proto)
        make_dense(proto)
        look_through_maps(proto)
        free_reserved_names(proto)
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, file.parent)
        ir.serde.serialize_model(model)  # text that is not UTF-8 is read, but cannot be written
    except ModelError:
        raise
    except Exception as error:  # the parser raises many kinds for a damaged file
        if is_lack_of_memory(error):
            raise
        with file.open("rb") as stream:
            first = stream.read(16)
        raise ModelError(
            f"The file is not a readable ONNX model: it begins with {first!r}",
            place=str(path),
            hint="Name the .onnx file of an export, or its folder "
            f"(the parser failed with {type(error).__name__}).",
        ) from error
    if not model.graph.outputs or len(model.graph) == 0:
        raise ModelError("The model has no nodes or no outputs", place=str(path))
    return model, names


def _signature(value: ir.Value) -> GraphInput:
    known = None if value.dtype == ir.DataType.UNDEFINED else value.dtype
    dtype = np.dtype(np.float32 if known is None else known.numpy())
    shape = value.shape
    if shape is None:
        return GraphInput(value.name or "", dtype, None, value)
    dims = tuple(d if isinstance(d, int) else d.value for d in shape)
    return GraphInput(value.name or "", dtype, dims, value)
