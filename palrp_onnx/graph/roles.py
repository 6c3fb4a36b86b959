"""The roles a value can have, each decided with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a value is to the explanation.

    Of an operand of a node, ``CONTENT``, ``POSITION``, ``SEGMENT``, ``PARAMETER`` and ``MIXED`` can
    receive relevance; ``STATISTIC`` (a normaliser, or the gate of a self-gated activation) scales
    its partner like a constant; ``MASK`` and ``INDEX`` never carry any.
    """

    CONTENT = "content"
    POSITION = "position"
    SEGMENT = "segment"
    MASK = "mask"
    PARAMETER = "parameter"
    STATISTIC = "statistic"
    MIXED = "mixed"
    INDEX = "index"


@dataclass(frozen=True)
class Fact:
    """A role, and why."""

    role: Role
    reason: str
