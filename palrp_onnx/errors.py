"""One exception tree: every error has a stable code, a place, a next step and an exit code.

The exit codes are part of the command line's contract: 2 usage, 3 bad input, 4 the model cannot
be explained as asked, 5 a check failed, 6 a batch finished with failed records, 7 resources.
"""

from __future__ import annotations

from typing import ClassVar


class PalrpError(Exception):
    """Base of all errors that are the caller's to act on.

    Args:
        message: One sentence that says what is wrong.
        place: Where: a node, a value, a file, a line.
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
    """The call itself makes no sense: an unknown method, an option that contradicts another."""

    code = "usage"
    exit_code = 2


class InputError(PalrpError):
    """The input cannot be used: wrong encoding, empty, unreadable, not what the graph takes."""

    code = "input"
    exit_code = 3


class OutputError(InputError):
    """The place for the result cannot be written."""

    code = "output"


class ModelError(PalrpError):
    """The file is not a model that can be opened safely."""

    code = "model"
    exit_code = 4


class UnsupportedError(ModelError):
    """An operation on the path of relevance has no rule."""

    code = "unsupported"


class LaterOpsetError(UnsupportedError):
    """The relevance pass needs operations that the graph's opset does not have yet.

    Args:
        opset: The first that has them.
        what: What they are for.
    """

    def __init__(self, opset: int, what: str) -> None:
        super().__init__(f"{what} takes opset {opset} or later")
        self.opset = opset


class RoleError(ModelError):
    """The role of a value cannot be decided from the graph."""

    code = "role"


class FidelityError(ModelError):
    """What would be explained is not what the file computes."""

    code = "fidelity"


class ZeroMapError(ModelError):
    """The map is zero everywhere although the output depends on the input."""

    code = "zero_map"


class TargetError(ModelError):
    """There is no such target, or the target has to be named."""

    code = "target"


class CheckError(PalrpError):
    """A check that was asked for did not hold."""

    code = "check"
    exit_code = 5


class ResourceError(PalrpError):
    """Memory, a runtime or a device that was asked for is not there."""

    code = "resource"
    exit_code = 7
