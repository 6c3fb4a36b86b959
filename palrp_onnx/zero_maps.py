"""Maps that are zero everywhere: correct if the input has no effect on the target, else an error.

Such a map is correct if, for example, a ReLU is zero for this input. It is wrong if relevance
cannot pass from the output to the input, for example because of a cast to integers. To distinguish
the two, changed versions of the input are explained: if the target's value changes and their maps
are zero too, the map is no explanation. For other maps nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from palrp_onnx.engines import Engine, Outcome
from palrp_onnx.errors import PalrpError, ZeroMapError
from palrp_onnx.fidelity import magnitude
from palrp_onnx.record import Warning_
from palrp_onnx.relevance.target import Target
from palrp_onnx.types import Array, Feeds

#: Smallest change of a target that counts, as a share of the output's largest magnitude.
_MOVED = 1e-5


def warning(name: str) -> Warning_:
    """The warning for a map of input ``name`` that is zero everywhere."""
    return Warning_(
        code="zero_map",
        message=f"the map of {name} is zero everywhere: near this input nothing changes the target",
    )


def find_zero_maps(
    engine: Engine, feeds: Feeds, target: Target | Sequence[Target], outcome: Outcome
) -> dict[str, list[int]]:
    """Rows of ``outcome`` whose map is zero everywhere, correctly as far as is known.

    Args:
        engine: The engine that explained them.
        feeds: The input.
        target: The target.
        outcome: The result.

    Returns:
        The rows by the name of the explained input.

    Raises:
        ZeroMapError: The target of such a row depends on the input.
    """
    names = (engine.subject.input, *outcome.further)
    return {name: _zero_rows(engine, feeds, target, outcome, name) for name in names}


def _zero_rows(
    engine: Engine,
    feeds: Feeds,
    target: Target | Sequence[Target],
    outcome: Outcome,
    name: str,
) -> list[int]:
    whole = feeds[name].dtype.kind in "iu"  # an id of 0 is an ordinary token
    one = engine.subject.one
    rows = [row for row in zero_rows(outcome, name) if whole or np.any(one(feeds, row)[name])]
    suspects, moved = set(rows), set[int]()
    for changed in _changed(feeds[name]) if rows else ():
        try:
            found = engine.explain({**feeds, name: changed}, target)
        except PalrpError:  # not a valid input of this model
            continue
        suspects &= set(zero_rows(found, name))
        moved |= {row for row in suspects if _moves(outcome, found, row)}
    lost = sorted(suspects & moved)
    if lost:
        raise ZeroMapError(
            "The map is zero everywhere although the output depends on the input",
            place=f"input {name}, output {engine.subject.output}, row {lost[0]}",
            hint=_hint(engine.subject.facts.before),
        )
    return rows


def _hint(before: str | None) -> str:
    """Possible reasons; ``before`` names the input of a softmax or sigmoid at the end."""
    cut = (
        "What depends on it does so by operations that carry no relevance, such as comparisons or "
        "casts to whole numbers: `palrp-onnx inspect` shows what is content."
    )
    sure = f"A probability of 1 has nothing left to explain: --output {before}."
    return cut if before is None else f"{sure} Or: {cut[0].lower()}{cut[1:]}"


def zero_rows(outcome: Outcome, name: str = "") -> list[int]:
    """Rows whose content and sites are all zero on the map of an input, by default the first."""
    maps = outcome.further.get(name, outcome.maps)
    arrays = [maps.content, *(site.relevance for site in maps.sites)]
    return [row for row in range(len(maps.content)) if not any(np.any(a[row]) for a in arrays)]


def _moves(before: Outcome, after: Outcome, row: int) -> bool:
    """Whether the value of the target of ``before`` has changed in ``after``."""
    if before.output.shape != after.output.shape:
        return True
    old, new = (o.output[row].astype(np.float64) for o in (before, after))
    seed = before.targets[row].seed(old)
    chosen = seed != 0
    moved = float(((new[chosen] - old[chosen]) * seed[chosen]).sum())
    return abs(moved) > _MOVED * max(magnitude(old), magnitude(new))


def _changed(given: Array) -> Iterator[Array]:
    """Changed inputs of the same kind: smaller or reversed ids, or scaled and shifted numbers.

    Every table has rows for smaller ids; an id of 0 becomes 1.
    """
    if given.dtype.kind in "iu":
        yield np.where(given > 0, given - 1, given + 1).astype(given.dtype)
        yield given // 2
        yield given[:, ::-1].copy() if given.ndim > 1 else given[::-1].copy()
        return
    largest = np.abs(given).max(axis=tuple(range(1, given.ndim)), keepdims=True)
    for factor, shift in ((1.5, 0.25), (-1.0, 0.0), (0.5, -0.5)):
        yield (factor * given + shift * largest).astype(given.dtype)
