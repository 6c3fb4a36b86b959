"""What decides the content of every line of a batch."""

from __future__ import annotations

import msgspec
from msgspec import Struct, structs

from palrp_onnx.errors import UsageError
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import resolve_method
from palrp_onnx.relevance.methods import own_method


class Settings(Struct, frozen=True, kw_only=True):
    """How records are explained; see :class:`palrp_onnx.Explainer` for most of it.

    Attributes:
        target: What is explained of records that name no target of their own.
        tokenizer: Path of ``tokenizer.json``, where it is not beside the model.
        example: Path of an ``.npz`` file with arrays that the model takes, for the trial runs where
            it runs on no example that is made up.
        batch_size: The most records in one run of the model.
        batch_tokens: The most tokens in one run, padding included; a longer record runs alone.
    """

    target: str = "pred"
    method: Method | str | None = None
    positions: str | None = None
    engine: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    output: str | None = None
    explain_input: str | None = None
    roles: dict[str, str] = msgspec.field(default_factory=dict)
    tokenizer: str | None = None
    example: str | None = None
    batch_size: int = 16
    batch_tokens: int = 8192

    def portable(self) -> Settings:
        """The same, with a method that other processes know: by name, or as a whole.

        Raises:
            UsageError: There is no such method.
        """
        if self.method is None:
            return self
        found = resolve_method(self.method)
        return structs.replace(self, method=own_method(found) or found.text)


class Shard(Struct, frozen=True):
    """Every ``count``-th record, from the ``index``-th on; both count from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises:
            UsageError: It is not of that form, or ``i`` is not between 1 and ``n``.
        """
        first, slash, second = text.partition("/")
        numbers = [int(part) for part in (first, second) if part.isascii() and part.isdecimal()]
        if not slash or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
            raise UsageError(f"--shard {text}: not of the form i/n with 1 ≤ i ≤ n")
        return cls(*numbers)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, place: int) -> bool:
        """Whether the record at ``place``, counted from 0, is one of the shard's."""
        return place % self.count == self.index - 1
