"""Everything that the lines of a batch depend on, besides model and input."""

from __future__ import annotations

import msgspec
from msgspec import Struct, structs

from palrp_onnx.errors import UsageError
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import resolve_method
from palrp_onnx.relevance.methods import own_method


class Settings(Struct, frozen=True, kw_only=True):
    """How records are explained; most options are those of :class:`palrp_onnx.Explainer`.

    Attributes:
        target: The target of records that have none of their own.
        tokenizer: Path of the tokenizer, a file or a folder, if it is not beside the model.
        bind: What inputs of the graph receive of a text, where that is open; see
            :func:`palrp_onnx.inputs.bind_inputs`.
        example: Path of an ``.npz`` file with a valid input, for trial runs of models that do not
            run on a synthetic example.
        windows: Explain texts that are longer than the model in windows that share this number of
            tokens; −1: half of each.
        columns: Names of units by input; under no name those of the only one that has as many.
        head: The kind of head; see :class:`palrp_onnx.Explainer`.
        batch_size: Largest number of records in one run of the model.
        batch_tokens: Largest number of tokens in one run, padding included; a longer record runs
            alone.
    """

    target: str = "pred"
    method: Method | str | None = None
    positions: str | None = None
    engine: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    memory: str | None = None
    output: str | None = None
    explain_input: tuple[str, ...] = ()
    roles: dict[str, str] = msgspec.field(default_factory=dict)
    tokenizer: str | None = None
    bind: dict[str, str] = msgspec.field(default_factory=dict)
    example: str | None = None
    windows: int | None = None
    columns: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    head: str | None = None
    batch_size: int = 16
    batch_tokens: int = 8192

    def portable(self) -> Settings:
        """The same settings, with the method in a form that other processes know: name or object.

        Raises:
            UsageError: There is no such method.
        """
        if self.method is None:
            return self
        found = resolve_method(self.method)
        return structs.replace(self, method=own_method(found) or found.text)


class Shard(Struct, frozen=True):
    """Every ``count``-th record, starting with the ``index``-th, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises:
            UsageError: The text is not of that form, or ``i`` is not between 1 and ``n``.
        """
        first, slash, second = text.partition("/")
        numbers = [int(part) for part in (first, second) if part.isascii() and part.isdecimal()]
        if not slash or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
            raise UsageError(f"--shard {text}: not of the form i/n with 1 ≤ i ≤ n")
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, place: int) -> bool:
        """Whether the record at ``place``, counted from 0, belongs to the shard."""
        return place % self.count == self.index - 1
