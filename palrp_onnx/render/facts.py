"""What a record says besides its maps: the model's answers, origin, verdicts, other facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from palrp_onnx.record import Attribution
from palrp_onnx.render.flow import visible
from palrp_onnx.render.markup import short
from palrp_onnx.render.scale import number
from palrp_onnx.render.titles import class_name


@dataclass(frozen=True)
class Answer:
    """One of the largest entries of the output.

    ``share`` is its length as a bar, 0 … 1; ``explained``: the map is about it.
    """

    name: str
    value: str
    share: float
    explained: bool


def answers(record: Attribution) -> list[Answer]:
    """The largest entries of the output, the predicted one first, by probability if known."""
    if record.prediction is UNSET:
        return []
    top = record.prediction.top
    numbers = [each.value if each.probability is None else each.probability for each in top]
    largest = max((abs(value) for value in numbers), default=0.0) or 1.0
    return [
        Answer(
            short(visible(class_name(each.label, each.index)), 40),
            number(each.value) if each.probability is None else f"{each.probability:.3g}",
            max(value, 0.0) / (1.0 if each.probability is not None else largest),
            record.target.kind != "contrast" and record.target.entry == each.index,
        )
        for each, value in zip(top, numbers, strict=True)
    ]


def model_name(record: Attribution) -> str:
    """The file of the model, with the beginning of its digest."""
    model = record.model
    return f"{model.name or ', '.join(model.files or ())} {model.sha256[:12]}".strip()


def origin(record: Attribution) -> list[tuple[str, str]]:
    """Where the record comes from: file, method, versions, date."""
    run = record.run
    versions = [
        f"palrp-onnx {run.version}",
        *([f"ONNX Runtime {run.runtime}"] if run.runtime else []),
    ]
    found = [
        ("model", model_name(record)),
        ("method", f"{run.method}, {run.dtype}"),
        ("input", record.id),
        ("by", ", ".join(versions)),
        ("date", run.date or ""),
    ]
    return [(name, short(visible(text))) for name, text in found if text]


def verdicts(record: Attribution) -> list[tuple[str, bool]]:
    """The checks in words, and whether they passed: those that were asked for, and fidelity."""
    found = []
    if record.fidelity is not UNSET and record.fidelity.difference is not None:
        difference, allowed = record.fidelity.difference, record.fidelity.allowed
        limit = "" if allowed is None else f" (at most {allowed:.2g})"
        found.append(
            (
                f"differs from the file by {difference:.2g}{limit}",
                allowed is None or difference <= allowed,
            )
        )
    for check in record.checks or ():
        value = "not known" if check.found is None else f"{check.found:.3g}"
        found.append((visible(f"fails if {check.check}; it is {value}"), check.passed))
    return found


def facts(record: Attribution) -> list[tuple[str, list[tuple[str, str]]]]:
    """Lists of names and values with headings."""
    run, source = record.run, record.input
    groups: list[tuple[str, dict[str, Any]]] = [
        ("Model", _known(record.model)),
        (
            "Run",
            {
                "palrp-onnx": run.version,
                **({"ONNX Runtime": run.runtime} if run.runtime else {}),
                **({"date": run.date} if run.date else {}),
                "method": run.method,
                **run.params,
                "engine": run.engine,
                "device": run.device,
                "numbers": run.dtype,
                "providers": ", ".join(run.providers),
                **{f"{name}, ms": amount for name, amount in run.ms.items()},
            },
        ),
        (
            "Input",
            {
                "id": record.id,
                "kind": source.kind,
                "units": ", ".join(
                    f"{len(each.relevance.total)} × {each.units.kind}" for each in record.maps
                ),
                **({"truncated": "yes"} if source.truncated else {}),
                **({"size": "{} × {}".format(*source.size)} if source.size else {}),
            },
        ),
    ]
    if record.run.files:
        groups.append(("Files, SHA-256", dict(record.run.files)))
    if record.fidelity is not UNSET:
        fidelity = _known(record.fidelity)
        rewritten = ", ".join(f"{n} × {count}" for n, count in fidelity.pop("rewritten").items())
        groups.append(("Fidelity to the file", {"rewritten": rewritten, **fidelity}))
    return [
        (heading, [(visible(str(n)), short(visible(str(v)), 500)) for n, v in pairs.items()])
        for heading, pairs in groups
    ]


def _known(facts: msgspec.Struct) -> dict[str, Any]:
    """The facts that are there."""
    fields = msgspec.structs.asdict(facts)
    found = {
        name: value for name, value in fields.items() if value is not UNSET and value is not None
    }
    return {n: ", ".join(map(str, v)) if isinstance(v, list) else v for n, v in found.items()}
