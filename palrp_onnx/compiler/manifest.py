"""The manifest of an explainer file, stored in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from palrp_onnx.errors import ModelError, UsageError
from palrp_onnx.relevance.method import Method
from palrp_onnx.subject import Subject

#: Prefix of the metadata of explainer files.
PREFIX = "palrp_onnx."


class Aligned(Struct, frozen=True, kw_only=True):
    """The sites on the map of a further explained input: see :class:`Manifest`."""

    sites: tuple[tuple[str, int, str], ...]
    unaligned: tuple[str, ...]


class Manifest(Subject, frozen=True, kw_only=True):
    """The manifest of an explainer file: one metadata property for every field.

    Attributes:
        version: Version of the program that compiled it.
        method: Name of the method, with parameters that differ from its defaults.
        positions: Reduction of position sinks to one number for every unit.
        sites: Kind, layer and part of every row of ``relevance_sites``.
        unaligned: Names of sites whose tokens are not the units.
        further_aligned: The same two for each further explained input.
        ledger: Entry of every column of ``relevance_ledger``.
        roles: Roles that override those found, by value name.
        memory: ``bounded`` where forward values are computed again, or ``fast``.
        required: Names of the inputs for targets that have no default, with commas between them.
        own: The whole method, if it does not come with the package.
    """

    version: str
    method: str
    positions: str
    sites: tuple[tuple[str, int, str], ...]
    unaligned: tuple[str, ...]
    ledger: tuple[str, ...]
    roles: dict[str, str]
    memory: str = "fast"
    required: str = ""
    own: Method | None = None
    further_aligned: tuple[Aligned, ...] = ()

    @property
    def aligned(self) -> Aligned:
        """The sites on the map of the first explained input, and the others."""
        return Aligned(sites=self.sites, unaligned=self.unaligned)

    def properties(self) -> dict[str, str]:
        """The fields as metadata: text unchanged, everything else as JSON."""
        fields, texts = msgspec.to_builtins(self), self._texts()
        if self.own is None:
            del fields["own"]
        return {
            PREFIX + name: value if name in texts else json.dumps(value)
            for name, value in fields.items()
        }

    @classmethod
    def _texts(cls) -> set[str]:
        """Names of the fields whose type is text."""
        return {f.name for f in msgspec.structs.fields(cls) if f.type is str}

    @classmethod
    def read(cls, properties: Mapping[str, str]) -> Manifest | None:
        """The manifest in a model's metadata; ``None`` if the model is no explainer.

        Raises:
            ModelError: The manifest is damaged, or of another version of the format.
        """
        mine = {k.removeprefix(PREFIX): v for k, v in properties.items() if k.startswith(PREFIX)}
        if not mine:
            return None
        texts = cls._texts()
        try:
            fields = {k: v if k in texts else json.loads(v) for k, v in mine.items()}
            return msgspec.convert(fields, cls)
        except (ValueError, RecursionError, UsageError) as error:
            raise ModelError(
                "The explainer's metadata cannot be read",
                place=f"metadata {PREFIX}*",
                hint=f"Compile the model again. {error}",
            ) from error
