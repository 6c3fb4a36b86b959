"""Models whose facts were found before: what readers and records need of a file without its graph.

An entry belongs to the content of the model's own files. The digest that records state is computed
again every time, also of external data, before anything of the entry is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct

from palrp_onnx.cache.folder import CacheFolder
from palrp_onnx.cache.keys import key_of
from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.errors import InputError
from palrp_onnx.hashing import Digest
from palrp_onnx.model.changes import Blank, Changes
from palrp_onnx.model.locate import model_file, parts_of, real_files
from palrp_onnx.model.signature import Answers, GraphInput

if TYPE_CHECKING:
    from palrp_onnx.model.open import Model


class Signature(Struct, frozen=True):
    """An input or output: its name, type and lengths of axes."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


class StoredFacts(Struct, frozen=True, kw_only=True):
    """The facts of a model: see :class:`palrp_onnx.Model` and :class:`Answers`.

    Attributes:
        external: Names of the files of external data, in the order of the digest.
        decides: Whether inputs decide about branches or loops.
    """

    sha256: str
    opset: int
    producer: str
    nodes: int
    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    counts: dict[str, int]
    blanks: tuple[Signature, ...]
    external: tuple[str, ...]
    decides: bool
    purposes: dict[str, str | None]
    ids: str | None
    produced: str | None


class StoredModel:
    """A model with its facts, whose graph is opened when something asks for it.

    It has the attributes of :class:`palrp_onnx.Model`.

    Args:
        path: The file, or the folder of an encoder and a decoder.
        folder: Where entries are.
        facts: The facts.
        model: The opened model, if it is.
    """

    past = False
    ends = None
    decided = ()

    def __init__(
        self, path: Path, folder: CacheFolder, facts: StoredFacts, model: Model | None = None
    ) -> None:
        self.path, self.store, self.facts = path, folder, facts
        self.sha256, self.opset, self.producer = facts.sha256, facts.opset, facts.producer
        self.nodes, self.decides = facts.nodes, facts.decides
        self.metadata: Mapping[str, str] = {}  # no explainer is stored
        blanks = [Blank(each.name, np.dtype(each.dtype), each.shape) for each in facts.blanks]  # type: ignore[arg-type]
        self.changes = Changes(Counter(facts.counts), blanks)
        self.lowered, self.removed = self.changes.counts, self.changes.blanks
        known = Answers(
            names=tuple(each.name for each in facts.inputs),
            purposes=facts.purposes,
            ids=facts.ids,
            produced=facts.produced,
            open=lambda: {each.name: each for each in self.full.inputs},
        )
        self.inputs = tuple(_input(each, known) for each in facts.inputs)
        self.outputs = tuple(_input(each) for each in facts.outputs)
        if model is not None:
            self.__dict__["full"] = model

    @cached_property
    def full(self) -> Model:
        """The model with its graph.

        Raises:
            InputError: The file is another one than before.
        """
        from palrp_onnx.model.open import Model

        model = Model.open(self.path)
        if model.sha256 != self.sha256:
            raise InputError("The model has changed while it was used", place=str(self.path))
        return model

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or those of the encoder and the decoder, with links resolved."""
        return real_files(self.path)

    @property
    def folder(self) -> Path:
        """The folder of the file and its external data, with links resolved."""
        return self.files[0].parent

    def __getattr__(self, name: str) -> Any:
        """Everything else is asked of the graph."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.full, name)


def open_model(path: str | Path, folder: CacheFolder | None) -> Model | StoredModel:
    """Open a model, with the facts of an entry where there is one.

    Raises:
        InputError: The file does not exist, or the folder holds none or several.
        ModelError: The file cannot be opened.
    """
    path = model_file(Path(path))
    own = real_files(path)
    digest = Digest.of(own)
    if folder is not None and (found := _stored(path, own, digest, folder)) is not None:
        return found
    from palrp_onnx.model.open import Model

    model = Model.open(path, digest=digest)
    facts = None if folder is None else _facts(model)
    if folder is None or facts is None:
        return model
    folder.put(_key(path, own, digest), msgspec.msgpack.encode(facts))
    return StoredModel(path, folder, facts, model)


def _key(path: Path, own: tuple[Path, ...], digest: Digest) -> str:
    """Files of one graph may have other weights elsewhere, so that the place counts, too."""
    names = [each.name for each in parts_of(path)]
    return key_of("model", {"own": digest.hex(), "at": str(own[0].parent), "names": names})


def _stored(
    path: Path, own: tuple[Path, ...], digest: Digest, folder: CacheFolder
) -> StoredModel | None:
    """A model with the facts of an entry, if these are of the files as they are now."""
    try:
        content = folder.get(_key(path, own, digest))
        if content is None:
            return None
        facts = msgspec.msgpack.decode(content, type=StoredFacts)
        files = [own[0].parent / name for name in facts.external]
        if any(file.resolve() != file or not file.is_file() for file in files):
            return None
        found = Digest(files, before=digest).hex()
        return StoredModel(path, folder, facts) if found == facts.sha256 else None
    except (OSError, ValueError, TypeError):  # also msgspec's, of another form
        return None


def _facts(model: Model) -> StoredFacts | None:
    """The facts of an opened model; ``None`` where it cannot be stored."""
    from palrp_onnx.inputs.produced import decoder_input
    from palrp_onnx.inputs.purposes import ids_input, purposes
    from palrp_onnx.model.branches import has_decisions

    external = _external(model)
    types = [each.dtype for each in (*model.inputs, *model.outputs)]
    types += [each.dtype for each in model.removed]
    if any(np.dtype(each.str) != each for each in types):
        return None  # a type that NumPy does not know by itself
    if external is None or Manifest.read(model.metadata) is not None:
        return None
    try:
        return StoredFacts(
            sha256=model.sha256,
            opset=model.opset,
            producer=model.producer,
            nodes=model.nodes,
            inputs=tuple(map(_signature, model.inputs)),
            outputs=tuple(map(_signature, model.outputs)),
            counts=dict(model.lowered),
            blanks=tuple(Signature(b.name, b.dtype.str, b.shape) for b in model.removed),
            external=external,
            decides=has_decisions(model),
            purposes=purposes(model.inputs),
            ids=ids_input(model.inputs),
            produced=decoder_input(model.inputs),
        )
    except InputError:  # where a text is read, this says what is wrong
        return None


def _external(model: Model) -> tuple[str, ...] | None:
    """Names of the files of external data; ``None`` where one is behind a link."""
    folders = {part.parent for part in parts_of(model.path)}
    straight = all(folder.resolve() == model.folder for folder in folders)
    places = (model.folder / name == file for name, file in model.external.items())
    return tuple(model.external) if not model.external or (straight and all(places)) else None


def _signature(each: GraphInput) -> Signature:
    return Signature(each.name, each.dtype.str, each.shape)


def _input(each: Signature, known: Answers | None = None) -> GraphInput:
    return GraphInput(each.name, np.dtype(each.dtype), each.shape, known=known)
