"""Several explanations in one object: of several targets or rows, or of a text that goes on.

What draws is imported where it is used, as for one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import msgspec

from palrp_onnx.entries import frame_of
from palrp_onnx.errors import InputError
from palrp_onnx.explanation import CONTENTS as CONTENTS_OF_ONE
from palrp_onnx.explanation import Explanation, join_tensors, made_for, save_tensors, write
from palrp_onnx.files import Content
from palrp_onnx.hops import Trace, trace
from palrp_onnx.limits import Limit
from palrp_onnx.matrix import Matrix
from palrp_onnx.record import decode, encode

#: Explanations that a notebook shows.
_SHOWN = 10


class Explanations(Sequence[Explanation]):
    """Several explanations: of several targets, or of several rows."""

    def __init__(self, explanations: Iterable[Explanation], *, id: str | None = None) -> None:
        self._all = tuple(explanations)
        self.id = id or (self._all[0].id if self._all else "")

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, place: int) -> Explanation: ...
    @overload
    def __getitem__(self, place: slice) -> Explanations: ...
    def __getitem__(self, place: int | slice) -> Explanation | Explanations:
        if isinstance(place, slice):
            return Explanations(self._all[place], id=self.id)
        return self._all[place]

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self._all)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Explanation, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(
            f"These are {len(self)} explanations, and {name!r} belongs to one: take [0].{name}"
        )

    def __repr__(self) -> str:
        return "[" + ",\n ".join(map(repr, self._all)) + "]"

    def _repr_html_(self) -> str:
        shown = "<hr>".join(each._repr_html_() for each in self._all[:_SHOWN])
        more = len(self) - _SHOWN
        return f"<div>{shown}{f'<hr>… {more} more' if more > 0 else ''}</div>"

    def save(self, place: str | Path) -> Path:
        """Write all to one file.

        ``.html``: a page that lists them; ``.json``: an array of records; ``.npz``: raw signed
        relevance, joined on the batch axis.

        Raises:
            UsageError: The suffix is another, or there are no raw arrays.
            OutputError: The place cannot be written to.
        """
        return write(place, self, CONTENTS)

    def checked(self, limits: Sequence[Limit]) -> Explanations:
        """All with the verdicts of checks in their records."""
        return Explanations([each.checked(limits) for each in self._all], id=self.id)

    def to_dict(self) -> list[dict[str, Any]]:
        """All records as dictionaries, lists, texts and numbers."""
        return [each.to_dict() for each in self._all]

    def to_frame(self) -> Any:
        """The units of all as a ``pandas.DataFrame``, with the id and the target of each.

        Raises:
            ResourceError: pandas is not installed.
        """
        rows = (
            {"id": each.id, "target": each.target.label or each.target.index, **row}
            for each in self._all
            for row in each.units.to_dicts()
        )
        return frame_of(list(rows))


class Generated(Explanations):
    """A continued text: an explanation of every token that was produced.

    Attributes:
        matrix: Produced tokens × tokens that came before, as one object.
    """

    def __init__(self, explanations: Iterable[Explanation], matrix: Matrix) -> None:
        super().__init__(explanations, id=matrix.id)
        self.matrix = matrix

    def _repr_html_(self) -> str:
        from palrp_onnx.render.grid import render_matrix_png

        source = base64.b64encode(render_matrix_png(self.matrix)).decode()
        return f'<img alt="" style="max-width:100%" src="data:image/png;base64,{source}">'

    def checked(self, limits: Sequence[Limit]) -> Generated:
        """All with the verdicts of checks in their records."""
        return Generated([each.checked(limits) for each in self], self.matrix)

    @property
    def text(self) -> str:
        """What was produced."""
        return "".join(self.matrix.produced.text)

    def trace(self, first: int, last: int, *, hops: int | None = None) -> Trace:
        """The prompt behind a span of produced tokens: see :func:`palrp_onnx.hops.trace`."""
        return trace(self.matrix, first, last, hops=hops)

    def save(self, place: str | Path) -> Path:
        """Write all to one file.

        ``.html``, ``.png`` and ``.svg``: the matrix; ``.json``: an array of records.

        Raises:
            UsageError: The suffix is another.
            OutputError: The place cannot be written to.
        """
        return write(place, self, CONTENTS_OF_GENERATED)


def load_record(path: str | Path) -> Explanation | Any:
    """Read a record that was saved as ``.json``, or the records of a ``.jsonl`` file or an array.

    Returns:
        An :class:`Explanation` without raw arrays and image, or :class:`Explanations`.

    Raises:
        InputError: The file cannot be read, or holds no records.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".jsonl":
            lines = [line for line in data.splitlines() if line.strip()]
        elif data.lstrip().startswith(b"["):
            lines = [bytes(each) for each in msgspec.json.decode(data, type=list[msgspec.Raw])]
        else:
            return Explanation(decode(data), {})
        found = [decode(line) for line in lines]
    except OSError as error:
        message = f"Cannot be read: {error.strerror or error}"
        raise InputError(message, place=str(path)) from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError(f"holds no record: {error}", place=str(path)) from error
    return Explanations([Explanation(each, {}) for each in found], id=path.stem)


def page_of(explanations: Explanations) -> bytes:
    """The page of them: a few of one input side by side, or a list."""
    from palrp_onnx.render.beside import render_records

    records = [each.record for each in explanations]
    return render_records(explanations.id, records, [each.pictures for each in explanations])


def json_of(explanations: Explanations) -> bytes:
    """An array of records.

    Raises:
        ModelError: One holds NaN or infinity.
    """
    for each in explanations:
        each.record.require_finite(place=f"sample {each.id}")
    return encode([each.record for each in explanations])


def _matrix(name: str) -> Callable[[Generated], Content]:
    """Draws the matrix of a continued text, by a function of `palrp_onnx.render.grid`."""

    def drawn(generated: Generated) -> Content:
        from palrp_onnx.render import grid

        content: Content = getattr(grid, name)(generated.matrix)
        return content

    return drawn


#: What a file of several explanations holds, by its suffix.
CONTENTS: dict[str, Callable[[Explanations], Content]] = {
    ".html": page_of,
    ".json": json_of,
    ".npz": lambda each: partial(save_tensors, join_tensors(each)),
}
#: The same for a continued text.
CONTENTS_OF_GENERATED: dict[str, Callable[[Generated], Content]] = {
    ".html": _matrix("render_matrix_html"),
    ".png": _matrix("render_matrix_png"),
    ".svg": _matrix("render_matrix_svg"),
    ".json": json_of,
}


def content_of(what: Explanation | Explanations, suffix: str) -> Content:
    """What a file of this suffix holds of one or several explanations, as `save` writes it.

    Raises:
        UsageError: There is nothing for the suffix.
    """
    if isinstance(what, Explanation):
        return made_for(suffix, what, CONTENTS_OF_ONE)
    if isinstance(what, Generated):
        return made_for(suffix, what, CONTENTS_OF_GENERATED)
    return made_for(suffix, what, CONTENTS)
