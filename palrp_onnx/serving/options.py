"""How models are served: what the command parses, and what other processes get as JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from palrp_onnx.errors import UsageError
from palrp_onnx.model.locate import model_file
from palrp_onnx.relevance.methods import DEFAULT_METHOD


class Place(Struct, frozen=True):
    """A model and the name under which it is served.

    Attributes:
        name: The name.
        path: Absolute path of the file, or of the folder of an encoder and a decoder.
    """

    name: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``PATH`` or ``NAME=PATH``.

        Without a name, a model has that of its file, or of its folder where the file is
        ``model.onnx``.

        Raises:
            UsageError: The name has other characters than letters, digits, ``_``, ``-`` and ``.``.
            InputError: There is no such file.
        """
        name, _, path = text.rpartition("=") if not Path(text).exists() else ("", "", text)
        file = model_file(Path(path)).absolute()
        name = name or (file.parent.name if file.stem == "model" else file.stem)
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
            raise UsageError(
                f"{name!r} cannot name a model: letters, digits, '_', '-' and '.' only",
                hint=f"Name it: NAME={path}",
            )
        return cls(name, str(file))


def places(texts: Iterable[str]) -> tuple[Place, ...]:
    """Several models, each under a name of its own.

    Raises:
        UsageError: Two have one name, or there is none.
        InputError: There is no such file.
    """
    found = tuple(map(Place.parse, texts))
    if not found:
        raise UsageError("There is no model to serve")
    for name, count in Counter(each.name for each in found).items():
        if count > 1:
            raise UsageError(f"{count} models have the name {name!r}", hint="Name them: NAME=PATH")
    return found


class ServingOptions(Struct, frozen=True, kw_only=True):
    """All that the application depends on.

    Attributes:
        models: The models.
        loading: Options of :class:`palrp_onnx.LoadedModel`, the same for all models.
        methods: Methods that requests may name; the first is the default.
        positions: How positions are reduced; see :class:`palrp_onnx.Explainer`.
        target: The target of rows that name none.
        windows: Explain long texts in windows that share this number of tokens; −1: half of each.
        fail_on: Checks, as :class:`palrp_onnx.limits.Limit` reads them: an answer that fails one
            is an error instead.
        example: An ``.npz`` file with a valid input, for models that run on no synthetic one.
        batch_size: Largest number of rows in one run of a model.
        batch_tokens: Largest number of tokens in one run, padding included.
        queue: Largest number of rows of one model that wait or run.
        max_rows: Largest number of rows in one request; targets count as rows.
        max_tokens: Largest number of tokens of a row.
        max_body: Largest number of bytes of a request.
        timeout: Seconds within which a request is answered, its body included.
        reload: Seconds from one look at the files to the next; 0: files are read once.
        api_keys: A file with one key a line, one of which a request has to have.
        log_texts: Whether logs have the messages of errors, which may have parts of texts.
    """

    models: tuple[Place, ...]
    loading: dict[str, Any] = {}
    methods: tuple[str, ...] = (DEFAULT_METHOD,)
    positions: str | None = None
    target: str = "pred"
    windows: int | None = None
    fail_on: tuple[str, ...] = ()
    example: str | None = None
    batch_size: int = 16
    batch_tokens: int = 8192
    queue: int = 256
    max_rows: int = 64
    max_tokens: int = 8192
    max_body: int = 8 << 20
    timeout: float = 30.0
    reload: float = 5.0
    api_keys: str | None = None
    log_texts: bool = False

    def __post_init__(self) -> None:
        for name in ("timeout", "reload"):
            if not isfinite(getattr(self, name)):
                raise UsageError(f"--{name} is a number of seconds, not {getattr(self, name)}")
        if self.max_rows > self.queue:
            raise UsageError(
                f"A request of {self.max_rows} rows has no room in a queue of {self.queue}",
                hint="Raise --queue, or lower --max-rows.",
            )

    def encoded(self) -> str:
        """The options for another process."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decoded(cls, text: str) -> ServingOptions:
        """The options of :meth:`encoded`."""
        return msgspec.json.decode(text, type=cls)
