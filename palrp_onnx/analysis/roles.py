"""The roles a value can have, each decided with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from palrp_onnx.errors import UsageError


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


#: Roles by name of a value, said by a person.
Overrides = Mapping[str, Role]
#: Roles that a person can give.
GIVEN = (Role.CONTENT, Role.POSITION, Role.SEGMENT, Role.MASK, Role.PARAMETER)
SAID = "said by the user"


def parse_roles(texts: Mapping[str, str]) -> dict[str, Role]:
    """Roles by name of a value, from text.

    Raises:
        UsageError: There is no such role.
    """
    known = {role.value: role for role in GIVEN}
    for name, text in texts.items():
        if text not in known:
            raise UsageError(
                f"There is no role {text!r}", place=name, hint=f"Roles: {', '.join(known)}."
            )
    return {name: known[text] for name, text in texts.items()}
