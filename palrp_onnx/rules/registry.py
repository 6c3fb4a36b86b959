"""What a rule is, and the table of all rules.

A rule is a plain function ``rule(op, node, m)``. It gets the tensor language, the node with its
forward values, and the multiplier ``m = R / y`` of the output (a tuple with ``None`` for outputs
that received none, if the operation is registered with ``outputs="all"``). It returns one
multiplier per input, ``None`` for no path; or :class:`Shares` where the operation itself absorbs
relevance. The walk adds up the multipliers that consumers send, undoes broadcasting and keeps the
ledger.

An operation has a rule, carries no relevance on purpose (:data:`NO_PATH`), or is unsupported.
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
        """The first output, with 0 in place of NaN where the graph itself replaces NaN by 0."""
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
        """Whether an operand takes a share of a product: content, or a position under PA-LRP."""
        ...

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute, or its default."""
        ...

    def integers(self, index: int) -> tuple[int, ...]:
        """The entries of a constant integer input."""
        ...

    def reals(self, index: int) -> tuple[float, ...]:
        """The entries of a constant real input; empty where it has none."""
        ...

    def number(self, index: int) -> float:
        """The one entry of a constant real input."""
        ...

    def stored(self, index: int) -> float | None:
        """The one entry of a real input that is an initializer; ``None`` where it is computed."""
        ...

    def scores(self, index: int) -> T_co | None:
        """Pre-softmax scores of this operand if it is a softmax output, else ``None``."""
        ...

    def consumers_see_scores(self) -> bool:
        """Whether every consumer of this softmax is a product that can see its scores."""
        ...

    def is_weight(self, index: int) -> bool:
        """Whether the operand is a parameter: it does not depend on explained input."""
        ...

    def bias(self) -> T_co | None:
        """Bias vector that the ``Add`` directly after this node adds, if there is one."""
        ...

    def first_share(self) -> float:
        """Share of the first of two activations in their product, ½ unless the method says so."""
        ...

    def next_to_attention(self) -> bool:
        """Whether this layer makes values of attention or reads its result."""
        ...

    def self_gated(self) -> bool:
        """Whether this product is an activation whose factors are functions of one value."""
        ...

    def batch_axis(self) -> int:
        """The axis of the output that runs over samples alone, counted from the right.

        Raises:
            NotImplementedError: Samples share their axis with something else.
        """
        ...

    def parameter(self, name: str) -> float:
        """A parameter of the method: γ, ε, ….

        Raises:
            UsageError: The method has none of this name.
        """
        ...


@dataclass(frozen=True)
class Shares(Generic[T]):
    """Multipliers for the inputs, and relevance the operation absorbs.

    Attributes:
        inputs: One multiplier per input, ``None`` for no path.
        absorbed: Relevance by ledger entry, with the axes of the first output; every axis but the
            batch may be summed to length 1.
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
        since: First opset it applies to.
        outputs: Whether it gets the multiplier of the first output or of all outputs.
        ledger: Ledger entry for relevance of an operand, by input index, where it differs from
            the entry of the operand's role.
    """

    rule: Rule
    since: int
    outputs: Literal["first", "all"]
    ledger: Mapping[int, str]


#: Set of rules, domain and operation; the default rules are the set without a name.
RuleKey = tuple[str, str, str]
_RULES: dict[RuleKey, list[RuleEntry]] = {}

_NOTHING = {
    "it is constant but for its steps": "Ceil Floor Sign",
    "it is random": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform "
    "RandomUniformLike",
    "it chooses entries, by comparisons": "ArgMax ArgMin Hardmax NonMaxSuppression NonZero OneHot "
    "Unique",
    "its result is a truth value": "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual "
    "Not Or Xor",
    "it computes with whole numbers": "BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor",
    "its result depends on lengths and settings alone": "BlackmanWindow ConstantOfShape EyeLike "
    "HammingWindow HannWindow MelWeightMatrix Range Shape Size",
}
#: Operations that relevance does not pass, on purpose → why.
NO_PATH = {op_type: why for why, names in _NOTHING.items() for op_type in names.split()}


def rule(
    *op_types: str,
    domain: str = "",
    since: int = 1,
    under: str = "",
    outputs: Literal["first", "all"] = "first",
    ledger: Mapping[int, str] | None = None,
) -> Callable[[F], F]:
    """Register a function as the rule of ``op_types`` from opset ``since`` on.

    Args:
        op_types: The operations.
        domain: Their domain.
        since: First opset it applies to.
        under: The set of rules that it belongs to, which methods choose by name; the default set
            if empty.
        outputs: See :class:`RuleEntry`.
        ledger: See :class:`RuleEntry`.

    Raises:
        ValueError: The set has a rule for the operation since that opset already.
    """

    def register(function: F) -> F:
        for op_type in op_types:
            entries = _RULES.setdefault((under, domain, op_type), [])
            if any(e.since == since for e in entries):
                raise ValueError(f"{op_type} has two rules since opset {since}")
            entries.append(RuleEntry(function, since, outputs, ledger or {}))
        return function

    return register


def given(node: Node[Any], *names: str) -> dict[str, Any]:
    """The attributes of these names that the node has."""
    return {k: v for k in names if (v := node.attribute(k, None)) is not None}


def find_rule(domain: str, op_type: str, opset: int, sets: Sequence[str] = ()) -> RuleEntry | None:
    """The rule for an operation at an opset, or ``None`` if there is none.

    The first of ``sets`` that has one decides; the default rules come last.
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
