"""Texts about a record that pictures and pages share."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from palrp_onnx.record import Attribution, Map, entry_names
from palrp_onnx.render.flow import visible
from palrp_onnx.render.scale import number
from palrp_onnx.render.titles import class_name, first_name


def ends(record: Attribution) -> tuple[str, str]:
    """Labels for the negative and the positive end of the colour bar."""
    target = record.target
    low = "against"
    if target.kind == "contrast":
        low = f"for {visible(class_name(target.against_label, target.against))}"
    return low, f"for {visible(first_name(target))}"


def common_scale(shown: Map) -> tuple[float, str]:
    """The common scale of content, position and total, without special tokens, and a remark."""
    relevance = shown.relevance
    special = shown.units.special or [False] * len(relevance.total)
    parts = (relevance.content, relevance.position, relevance.total)
    ordinary = [abs(v) for part in parts for v, s in zip(part, special, strict=False) if not s]
    peak = max((abs(v) for part in parts for v in part), default=0.0)
    limit = max(ordinary, default=0.0) or peak
    if peak > limit:
        return limit, f"special tokens go up to {number(peak)[1:]}; ◥ marks what is off the scale"
    return limit, "one scale for all maps, in units of the target"


#: Entries of the ledger besides those of inputs and positions, in words.
_STAYS = {
    "softmax": "softmax (attention that all {many} share)",
    "bias": "biases",
    "segment": "token types",
    "norm": "offsets of norms",
    "other": "offsets of other functions",
    "rounding": "rounding",
    "kernel": "integer kernels",
}
#: Kinds of targets that are a prediction, if their index is that of one.
_SAME = ("class", "token", "place")
#: Smaller parts of the ledger are left out of the sentence.
_SMALL = 1e-3


def covered(record: Attribution) -> str:
    """How much of the target the map shows, and where the rest is, in one sentence."""
    ledger, maps = record.ledger, record.maps
    if not ledger:
        return "the explainer was compiled without a ledger"
    shown = sum(sum(each.relevance.total) for each in maps)
    off = sum(each.relevance.off_map.content + each.relevance.off_map.position for each in maps)
    mapped = {"content", "position", *(each.input for each in maps[1:])}
    rest = {name: ledger[name] for name in entry_names(ledger) if name not in mapped}
    least = _SMALL * sum(abs(ledger[name]) for name in entry_names(ledger))
    told = [name for name in rest if abs(rest[name]) > least or name == "bias"]
    told.sort(key=lambda name: -abs(rest[name]))
    stays = [
        f"{_amount(rest[name], least)} {'' if place else 'stays '}in {entry_words(name, maps)}"
        for place, name in enumerate(told)
    ]
    if abs(off) > least:
        stays.append(f"{number(off)} on places that are no {maps[0].units.kind}")
    if abs(ledger["residual"]) > least:
        stays.append(f"{number(ledger['residual'])} is not accounted for")
    noun = "map shows" if len(maps) == 1 else "page shows"
    target = _amount(ledger["target"], 0.0)
    return f"of {target} this {noun} {_amount(shown, least)}; {', '.join(stays)}"


def said(record: Attribution) -> str | None:
    """What the model predicts, where that is not what the title says; ``None`` otherwise."""
    found, target = record.prediction, record.target
    if found is UNSET or (target.index == found.index and target.kind in _SAME):
        return None
    if target.kind == "answer" and (target.label, target.value) == (found.label, found.value):
        return None
    name = visible(class_name(found.label, found.index))
    chance = "" if found.probability is None else f", probability {found.probability:.3g}"
    return f"the model predicts {name}{chance}"


def notices(record: Attribution) -> list[str]:
    """What the model did not read and could not know."""
    found = []
    if (left := record.input.unread) is not None:
        found.append(
            f"not read: {left.tokens} tokens ({left.characters} characters) beyond the limit"
        )
    if count := sum(sum(each.units.unknown) for each in record.maps):
        found.append(
            f"not known: {count} tokens ({100 * record.unknown:.1f} %) stand for what the "
            "vocabulary does not have"
        )
    return found


def failed_checks(record: Attribution) -> list[str]:
    """The checks that failed, with what they found."""
    failed = [] if record.checks is UNSET else [c for c in record.checks if not c.passed]
    return [
        f"check failed: {c.check} ({'not known' if c.found is None else f'{c.found:.3g}'})"
        for c in failed
    ]


def entry_words(name: str, maps: Sequence[Map]) -> str:
    """An entry of the ledger in words."""
    many = "units" if len(maps) > 1 else plural(maps[0].units.kind)
    if name in _STAYS:
        return _STAYS[name].format(many=many)
    if name == "position":
        return "positions"
    if len(maps) == 1:
        return "content"
    return f"content of {visible(maps[0].input if name == 'content' else name)}"


def plural(kind: str) -> str:
    """Several units of a kind."""
    return f"{kind}{'es' if kind == 'patch' else 's'}"


def _amount(value: float, least: float) -> str:
    return number(value) if abs(value) > least else "0"


def score_remark(record: Attribution) -> str:
    """What the score is."""
    how = str(record.run.params.get("positions", "relu"))
    return f"score: what {record.run.method} ranks by (sites by {how}); it is no sum of the ledger"


def shares(record: Attribution) -> str:
    """Shares of inputs, of positions and of special tokens in the maps, as text."""
    content, position = record.magnitudes()
    maps = record.maps
    found = [f"positions are {_percent(position, content + position)} of the map"]
    sizes = [sum(map(abs, each.relevance.total)) for each in maps]
    whole = sum(sizes)
    if any(any(each.units.special) for each in maps):
        special = sum(
            abs(v)
            for each in maps
            for v, s in zip(each.relevance.total, each.units.special, strict=False)
            if s
        )
        found.append(f"special tokens {_percent(special, whole)}")
    if len(maps) > 1:
        names = zip(maps, sizes, strict=True)
        found += [f"{visible(each.input)} {_percent(size, whole)}" for each, size in names]
    return ", ".join(found) + "  (of Σ|relevance|)"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
