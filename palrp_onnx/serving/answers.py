"""Answers in the form that the client asks for: JSON, a page, a picture; and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from palrp_onnx.explanation import Explanation
from palrp_onnx.explanations import Explanations, content_of
from palrp_onnx.serving.refusals import Refusal

JSON, PAGE, PICTURE = "application/json", "text/html", "image/png"
_SUFFIX = {PAGE: ".html", PICTURE: ".png"}


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Any value that msgspec encodes."""
    return Response(msgspec.json.encode(content), status, headers, media_type=JSON)


def refused(refusal: Refusal) -> Response:
    """An error, with the key ``error`` of both protocols, and its code."""
    content = {"error": refusal.message, "code": refusal.code}
    return json_answer(content, refusal.status, refusal.headers)


def form_of(accept: str) -> str:
    """The form among JSON, page and picture that an ``Accept`` header likes best.

    Raises:
        Refusal: It likes none of them.
    """
    if not accept.strip():
        return JSON
    found: list[tuple[float, str]] = []
    for part in accept.split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        for form in (JSON, PAGE, PICTURE):
            if kind.lower() in (form, f"{form.split('/')[0]}/*", "*/*"):
                found.append((_number(quality), form))
                break
    best = max(found, key=lambda each: each[0], default=(0.0, JSON))
    if not best[0]:
        if "octet-stream" in accept:  # tensors are in the body, whatever the client accepts
            return JSON
        raise Refusal(406, "usage", f"There are {JSON}, {PAGE} and {PICTURE}")
    return best[1]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def drawn(explanations: Sequence[Explanation], form: str) -> Response:
    """A page of explanations, or a picture of one.

    Raises:
        Refusal: There are several for one picture.
    """
    if form == PICTURE and len(explanations) != 1:
        raise Refusal(406, "usage", f"A picture shows one explanation, not {len(explanations)}")
    what = explanations[0] if len(explanations) == 1 else Explanations(explanations)
    content = content_of(what, _SUFFIX[form])
    assert isinstance(content, bytes)
    headers = {"x-content-type-options": "nosniff"}
    return Response(content, headers=headers, media_type=form)
