"""What a rule is, and the table of all rules.

A rule is a plain function ``rule(op, node, m)``. It gets the tensor language, the node with its
forward values, and the multiplier ``m = R / y`` of the output (a tuple with ``None`` for outputs
that nothing reached, if the operation is registered with ``outputs="all"``). It returns one
multiplier per input, ``None`` for no path; or :class:`Shares` where the operation itself absorbs
relevance. The walk sums what consumers send, undoes broadcasting and keeps the books.

Three cases never look alike: an operation has a rule, carries no relevance on purpose
(:data:`NO_PATH`), or is unsupported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from palrp_onnx.tensor.language import Language

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Node(Protocol[T_co]):
    """What a rule sees of a node."""

    op_type: str
    opset: int
    arity: int

    def input(self, index: int) -> T_co:
        """Forward value of an input."""
        ...

    def output(self, index: int = 0) -> T_co:
        """Forward value of an output."""
        ...

    def guarded_output(self) -> T_co:
        """The first output with 0 for NaN where the graph itself goes on like that."""
        ...

    def only_guards(self) -> bool:
        """Whether a ``Where`` only replaces NaN by 0."""
        ...

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        ...

    def rank(self, index: int) -> int:
        """Number of axes of an input."""
        ...

    def active(self, index: int) -> bool:
        """Whether an operand of a product takes a share: content, or a position under PA-LRP."""
        ...

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute, or its default."""
        ...

    def integers(self, index: int) -> tuple[int, ...]:
        """An integer input that is constant."""
        ...

    def reals(self, index: int) -> tuple[float, ...]:
        """A real input that is constant; empty where it has no entries."""
        ...

    def number(self, index: int) -> float:
        """A real input that is one constant number."""
        ...

    def stored(self, index: int) -> float | None:
        """The one number of a real input that is stored in the graph; ``None`` where it is not."""
        ...

    def scores(self, index: int) -> T_co | None:
        """What the softmax was taken of that an operand of a product is, if it is one."""
        ...

    def keeps(self) -> bool:
        """Whether all that reads this softmax are products that know its scores."""
        ...

    def weighs(self, index: int) -> bool:
        """Whether an operand of a product is weights: it depends on nothing explained."""
        ...

    def bias(self) -> T_co | None:
        """Parameters of one axis that an ``Add`` directly behind adds to the output, if any."""
        ...

    def samples(self) -> int:
        """The axis of the output that runs over samples alone, from the right."""
        ...

    def parameter(self, name: str) -> float:
        """A number of the method: γ, ε, ….

        Raises:
            UsageError: The method has none of this name.
        """
        ...


@dataclass(frozen=True)
class Shares(Generic[T]):
    """Multipliers for the inputs, and relevance the operation absorbs.

    Attributes:
        inputs: One multiplier per input, ``None`` for no path.
        absorbed: Relevance by ledger entry, with the axes of the first output; those that are not
            the batch may be summed, to length 1.
    """

    inputs: Sequence[T | None]
    absorbed: Mapping[str, T] = field(default_factory=dict)


Rule = Callable[[Language[Any], Node[Any], Any], "Sequence[Any] | Shares[Any]"]

F = TypeVar("F", bound=Rule)


@dataclass(frozen=True)
class RuleEntry:
    """A registered rule.

    Attributes:
        rule: The function.
        since: First opset it holds for.
        outputs: Whether it wants the multiplier of the first output or of all.
        books: Ledger entry of relevance that reaches an operand, by input index, where it is not
            the entry of the operand's role.
    """

    rule: Rule
    since: int
    outputs: Literal["first", "all"]
    books: Mapping[int, str]


#: Set of rules, domain and operation.
RuleKey = tuple[str, str, str]
#: The usual rules are the set without a name.
_RULES: dict[RuleKey, list[RuleEntry]] = {}

#: Real-valued results that no relevance passes through, on purpose.
NO_PATH = frozenset(
    "ArgMax ArgMin ConstantOfShape EyeLike Floor Ceil Sign Range RandomNormal "
    "RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial Shape Size "
    "NonZero Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Not IsNaN IsInf TopK "
    "Unique Hardmax OneHot BlackmanWindow HammingWindow HannWindow".split()
)


def rule(
    *op_types: str,
    domain: str = "",
    since: int = 1,
    under: str = "",
    outputs: Literal["first", "all"] = "first",
    books: Mapping[int, str] | None = None,
) -> Callable[[F], F]:
    """Register a function as the rule of ``op_types`` from opset ``since`` on.

    Args:
        op_types: The operations.
        domain: Their domain.
        since: First opset it holds for.
        under: The set of rules it belongs to, which methods choose by name; the usual ones without.
        outputs: See :class:`Entry`.
        books: See there.
    """

    def register(function: F) -> F:
        for op_type in op_types:
            entries = _RULES.setdefault((under, domain, op_type), [])
            if any(e.since == since for e in entries):
                raise ValueError(f"{op_type} has two rules since opset {since}")
            entries.append(RuleEntry(function, since, outputs, books or {}))
        return function

    return register


def given(node: Node[Any], *names: str) -> dict[str, Any]:
    """The attributes of these names that are there."""
    return {k: v for k in names if (v := node.attribute(k, None)) is not None}


def find_rule(domain: str, op_type: str, opset: int, sets: Sequence[str] = ()) -> RuleEntry | None:
    """The rule for an operation at an opset, or ``None`` if there is none.

    The first of ``sets`` that has one decides; the usual rules come last.
    """
    for name in (*sets, ""):
        fitting = [e for e in _RULES.get((name, domain, op_type), ()) if e.since <= opset]
        if fitting:
            return max(fitting, key=lambda e: e.since)
    return None


def supported(under: str = "") -> list[tuple[str, str, int]]:
    """(domain, operation, first opset) of every rule of a set, sorted."""
    return sorted(
        (domain, op_type, e.since)
        for (name, domain, op_type), entries in _RULES.items()
        for e in entries
        if name == under
    )


def rule_sets() -> list[str]:
    """Names of all sets of rules that come before the usual ones, sorted."""
    return sorted({name for name, _, _ in _RULES if name})


def rules_from_outside(sets: Sequence[str]) -> dict[RuleKey, list[RuleEntry]]:
    """The rules of some sets, and of the usual one, that are not this package's own."""
    own = __name__.partition(".")[0]
    found = {
        key: [e for e in entries if e.rule.__module__.partition(".")[0] != own]
        for key, entries in _RULES.items()
        if key[0] in (*sets, "")
    }
    return {key: entries for key, entries in found.items() if entries}


def add_rules(rules: Mapping[RuleKey, Sequence[RuleEntry]]) -> None:
    """Register rules from another process, but for those that are there already."""
    for key, added in rules.items():
        entries = _RULES.setdefault(key, [])
        there = {e.since for e in entries}
        entries.extend(e for e in added if e.since not in there)
