"""A continued text as one object: relevance of what was read, for each token that was produced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from palrp_onnx.record import (
    PARTS,
    Attribution,
    InputFacts,
    Ledger,
    Map,
    ModelFacts,
    Relevance,
    Run,
    TargetFacts,
    Units,
    Warning_,
)

MATRIX: Literal["palrp-onnx/generation/2.0"] = "palrp-onnx/generation/2.0"


class TokenRows(Struct, frozen=True, kw_only=True):
    """Relevance in units of the target of each row: one row for each produced token."""

    content: list[list[float]]
    position: list[list[float]]
    total: list[list[float]]
    score: list[list[float]]


class Matrix(Struct, frozen=True, kw_only=True):
    """Produced tokens × tokens of the prompt, or of what the encoder reads.

    Row *t* of ``relevance`` has one number for each unit of ``prompt``. Row *t* of ``earlier`` has
    one for each token that the decoder had before: those of ``start``, then the first *t* of
    ``produced``. ``start`` is what the decoder of an encoder begins with; other models have none.
    ``targets`` and ``ledgers`` are those of the rows; the sum of a row, that of further inputs and
    the other entries of its ledger make its target.
    """

    schema: Literal["palrp-onnx/generation/2.0"] = MATRIX
    id: str
    model: ModelFacts
    run: Run
    input: InputFacts
    prompt: Units
    produced: Units
    targets: list[TargetFacts]
    relevance: TokenRows
    earlier: TokenRows
    ledgers: list[Ledger]
    warnings: list[Warning_]
    start: Units | UnsetType = UNSET


def matrix_of(id: str, records: Sequence[Attribution], decoder: str | None) -> Matrix:
    """The matrix of the records of a continued text, one for each produced token.

    Args:
        id: Name of the text.
        records: One for each step, in order.
        decoder: The input that holds the decoder's tokens, where an encoder reads the prompt.
    """
    first = records[0]
    split = len(first.units.text) if decoder is None else None
    read, own = ([_map(each, decoder, own=side) for each in records] for side in (False, True))
    targets = [each.target for each in records]
    warnings = {(w.code, w.message): w for each in records for w in each.warnings}
    left = [m.input for m in first.maps if m.input not in (read[0].input, own[0].input)]
    if left:
        message = f"relevance of {', '.join(left)} is in the records alone, and in no row"
        warnings["", ""] = Warning_(code="other-inputs", message=message)
    return Matrix(
        id=id,
        model=first.model,
        run=first.run,
        input=first.input,
        prompt=read[0].units,
        produced=Units(
            kind="token",
            text=[target.label or str(target.index) for target in targets],
            id=[target.index for target in targets if isinstance(target.index, int)],
        ),
        targets=targets,
        relevance=_rows(read, slice(split)),
        earlier=_rows(own, slice(split, None)),
        ledgers=[each.ledger for each in records],
        warnings=list(warnings.values()),
        start=UNSET if decoder is None else own[0].units,
    )


def _map(record: Attribution, decoder: str | None, *, own: bool) -> Map:
    """The map of the decoder's own tokens, or of what is read; an empty one where there is none."""
    if decoder is None:
        return record.maps[0]
    found = (each for each in record.maps if (each.input == decoder) == own)
    nothing = Relevance(content=[], position=[], total=[], score=[])
    return next(found, Map(input="", units=Units(kind="token"), relevance=nothing, sites=[]))


def _rows(maps: Sequence[Map], columns: slice) -> TokenRows:
    def rows(name: str) -> list[list[float]]:
        return [getattr(each.relevance, name)[columns] for each in maps]

    return TokenRows(**{name: rows(name) for name in PARTS})


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the matrix, generated from the classes above."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": MATRIX,
        **msgspec.json.schema(Matrix),
    }
