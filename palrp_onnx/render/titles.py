"""What a target is called, in words."""

from __future__ import annotations

from palrp_onnx.record import Attribution, TargetFacts


def title_of(record: Attribution) -> str:
    """Name of a record's target; the last token is not named as the place of a next token."""
    along = record.target.along
    maps = [each for each in record.maps if along in (each.input, None)] or record.maps
    return target_name(record.target, last=len(maps[0].relevance.total) - 1)


def target_name(target: TargetFacts, *, last: int | None = None) -> str:
    """Name of the target: a class, a token, a contrast of two, a region, a span or a product.

    Args:
        target: The target.
        last: The last place of the input, after which a next token needs no place.
    """
    name, log = _named(target), "log p of " if target.logprob else ""
    name += " against the rest" if target.rest else ""
    if target.kind == "place" or _arrow(target):
        return f"{_token(target)} → {log}{name}{_chance(target)}"
    if target.head == "causal-lm" and target.kind in ("token", "contrast"):
        after = "" if target.position == last else f" after token {target.position}"
        return f"{log}next token {name}{after}"
    if target.kind == "answer":
        return f"answer {name}"
    at = "" if target.position is None else f" at token {target.position}"
    return f"{log}{name}{at}"


def _arrow(target: TargetFacts) -> bool:
    """Whether the target says something of one token of the input."""
    heads = ("token-classification", "masked-lm", "detection")
    return target.head in heads and target.kind in ("token", "contrast")


def _token(target: TargetFacts) -> str:
    what = "box" if target.head == "detection" else "token"
    return f"{what} {target.position}" if target.token is None else f'"{target.token}"'


def _chance(target: TargetFacts) -> str:
    """The probability, where the name does not state it yet."""
    if target.probability is None or target.kind == "contrast" or _is_word(target):
        return ""
    return f" {target.probability:.3g}"


def _named(target: TargetFacts) -> str:
    name = first_name(target)
    if target.kind == "contrast":
        if _is_word(target) and target.against_label is not None:
            return f'{name} rather than "{target.against_label}"'
        return f"{name} rather than {class_name(target.against_label, target.against)}"
    if _is_word(target) and target.kind == "token":
        chance = "" if target.probability is None else f", p {target.probability:.2g}"
        return f"{name} (id {target.index}{chance})"
    return name


def first_name(target: TargetFacts) -> str:
    """Name of the target without the contrasted class and the position."""
    if target.vector is not None:
        return f"{'similarity to' if target.kind == 'cosine' else 'product with'} {target.vector}"
    if target.kind == "place":
        return target.output
    if target.kind == "answer":
        start, end = target.places or (0, 0)
        where = f"token {start}" if start == end else f"tokens {start}–{end}"
        chance = "" if target.probability is None else f", p {target.probability:.2g}"
        return " ".join(filter(None, (target.label and f'"{target.label}"', f"({where}{chance})")))
    if target.kind == "span":
        first, final = (target.places or [0])[0], (target.places or [0])[-1]
        said = "" if target.label is None else f'"{target.label}" '
        return f"{said}(tokens {first + 1}–{final + 1})"
    if target.kind == "region":
        whole = target.index is None
        name = f"[{target.region}]" if whole else class_name(target.label, target.index)
        where = "" if whole else f", {target.region}"
        return f"{name} over {target.cells} places{where}"
    if _is_word(target) and target.label is not None:
        return f'"{target.label}"'
    return class_name(target.label, target.index)


def _is_word(target: TargetFacts) -> bool:
    """Whether labels are tokens of the vocabulary."""
    return target.head in ("causal-lm", "masked-lm")


def class_name(label: str | None, index: int | list[int] | None) -> str:
    """A class by its label, else by its index; an element by its indices."""
    if label is not None:
        return label
    if isinstance(index, list):
        return f"element {index}" if index else "the only element"
    return f"class {index}"
