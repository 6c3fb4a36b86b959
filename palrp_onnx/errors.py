"""Errors: each has a stable code, an exit code, and a message, a place and a next step.

The exit codes are part of the command line's contract: 2 usage, 3 bad input, 4 the model cannot
be explained as asked, 5 a check failed, 6 a batch finished with failed records, 7 resources.
"""

from __future__ import annotations

import errno
from typing import ClassVar


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; where a file is mapped it is one of the system."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )


class PalrpError(Exception):
    """Base of all errors that the caller can do something about.

    Args:
        message: What is wrong, in one sentence.
        place: Where it is: a node, a value, a file, a line.
        hint: The next step.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, place: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        if self.place:
            parts.append(f"at {self.place}")
        if self.hint:
            parts.append(self.hint)
        return " | ".join(parts)


class UsageError(PalrpError):
    """The call itself is wrong: an unknown method, options that contradict each other."""

    code = "usage"
    exit_code = 2


class InputError(PalrpError):
    """The input cannot be used: empty, unreadable, wrongly encoded, or not what the graph takes."""

    code = "input"
    exit_code = 3


class RunError(InputError):
    """The model does not run on this input."""


class OutputError(InputError):
    """The result cannot be written to its place."""

    code = "output"


class ModelError(PalrpError):
    """The file is not a model that can be opened safely."""

    code = "model"
    exit_code = 4


class UnsupportedError(ModelError):
    """An operation on the path of relevance has no rule."""

    code = "unsupported"


class LaterOpsetError(UnsupportedError):
    """The relevance pass needs operations of a later opset than the graph's.

    Args:
        opset: The first opset that has them.
        what: What needs them.
    """

    def __init__(self, opset: int, what: str) -> None:
        super().__init__(f"{what} needs opset {opset} or later")
        self.opset = opset


class RoleError(ModelError):
    """The role of a value cannot be decided from the graph."""

    code = "role"


class FidelityError(ModelError):
    """The graph that would be explained does not compute what the file computes."""

    code = "fidelity"


class ZeroMapError(ModelError):
    """The map is zero everywhere although the output depends on the input."""

    code = "zero_map"


class TargetError(ModelError):
    """There is no such target, or a target has to be named."""

    code = "target"


class CheckError(PalrpError):
    """A requested check failed."""

    code = "check"
    exit_code = 5


class ResourceError(PalrpError):
    """Memory, a runtime or a requested device is not available."""

    code = "resource"
    exit_code = 7
