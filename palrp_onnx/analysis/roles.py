"""The roles of values, and overrides of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from palrp_onnx.errors import UsageError


class Role(StrEnum):
    """Role of an input, or of an operand of a node.

    ``CONTENT``, ``POSITION``, ``SEGMENT``, ``PARAMETER`` and ``MIXED`` can receive relevance.
    ``STATISTIC`` (a normaliser, or the gate of a self-gated activation) scales the other operand
    like a constant. ``MASK`` and ``INDEX`` never receive relevance.
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
    """A role with its reason, which ``inspect`` prints."""

    role: Role
    reason: str


#: Name of a value → the role that ``--role`` sets.
Overrides = Mapping[str, Role]
#: Roles that ``--role`` can set; the first is for inputs alone.
OVERRIDABLE = (Role.CONTENT, Role.POSITION, Role.SEGMENT, Role.MASK, Role.PARAMETER)
#: Reason of a role that an override has set.
OVERRIDDEN = "said by the user"


def parse_roles(texts: Mapping[str, str]) -> dict[str, Role]:
    """Overrides from text: name of a value → name of a role.

    Raises:
        UsageError: There is no such role.
    """
    known = {role.value: role for role in OVERRIDABLE}
    for name, text in texts.items():
        if text not in known:
            raise UsageError(
                f"There is no role {text!r}", place=name, hint=f"Roles: {', '.join(known)}."
            )
    return {name: known[text] for name, text in texts.items()}
