"""An explanation, as people who work in Python get it: a record, its arrays, and what was read.

What draws is imported where it is used: to load it takes as long as a small model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, overload

import msgspec
import numpy as np
from msgspec import UNSET, structs

from palrp_onnx.entries import Entries, Entry, Numbers, units_of, words_of
from palrp_onnx.errors import UsageError
from palrp_onnx.files import Content, write_files
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.limits import Limit, with_checks
from palrp_onnx.record import (
    Attribution,
    Candidate,
    Map,
    Prediction,
    TargetFacts,
    Warning_,
    encode,
)
from palrp_onnx.types import Array

if TYPE_CHECKING:
    from palrp_onnx.render.picture import Seen

Saved = TypeVar("Saved")


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """One explained target of one sample. Its text is one line; a notebook shows the map.

    >>> import palrp_onnx as px
    >>> explanation = px.load("models/reviews-rope").explain("A gripping film.")
    >>> explanation.predicted
    'POSITIVE'
    >>> [name for name in explanation.probabilities]
    ['POSITIVE', 'NEGATIVE']
    >>> explanation.words.top(1)[0].text
    'gripping'
    >>> len(explanation.total) == len(explanation.tokens)
    True

    Attributes:
        record: The result record, which is what a ``.json`` file holds.
        tensors: ``content`` [1, units, features] (``pixels`` [1, C, H, W] for images),
            ``site/LAYER/PART`` [1, tokens, features], ``input/NAME`` for further inputs. Empty
            where they were not kept.
        sample: What was explained, with the original image; ``None`` of a record that was read.
    """

    record: Attribution
    tensors: dict[str, Array]
    sample: Sample | None = None

    def __repr__(self) -> str:
        from palrp_onnx.render.headline import headline

        return headline(self.record)

    def _repr_html_(self) -> str:
        from palrp_onnx.render.inline import inline

        return inline(self.record, **self.pictures)

    @property
    def id(self) -> str:
        """The name of the sample."""
        return self.record.id

    @property
    def target(self) -> TargetFacts:
        """What was explained: its label, its value, its probability where there is one."""
        return self.record.target

    @property
    def predicted(self) -> str | int | None:
        """The class or token that the model said, by its name, else by its index.

        ``None`` where entries of the output are neither.
        """
        found = self.record.prediction
        return None if found is UNSET else _name(found)

    @property
    def probabilities(self) -> dict[str | int, float]:
        """The most probable classes or tokens, the first first; empty where there are none."""
        found = self.record.prediction
        top = [] if found is UNSET else found.top
        return {_name(each): each.probability for each in top if each.probability is not None}

    @property
    def ledger(self) -> Mapping[str, float]:
        """How the value of the target is distributed; all entries and the residual sum to it."""
        return dict(self.record.ledger)

    @property
    def warnings(self) -> Sequence[Warning_]:
        """What the reader of the map must know."""
        return tuple(self.record.warnings)

    @property
    def maps(self) -> Mapping[str, Entries]:
        """The units of every explained input, by its name in the graph."""
        return {each.input: units_of(each) for each in self.record.maps}

    @property
    def units(self) -> Entries:
        """The units of the first explained input: tokens, patches, frames, steps, columns."""
        return units_of(self.record.maps[0])

    @property
    def tokens(self) -> Entries:
        """The tokens of the text.

        Raises:
            UsageError: No explained input is a text.
        """
        return units_of(self._text)

    @property
    def words(self) -> Entries:
        """The words of the text: tokens that belong together, with the sum of their relevance.

        Raises:
            UsageError: No explained input is a text.
        """
        return words_of(self.record, self._text)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of an image's patches: ``e.total.reshape(e.grid)`` is the picture."""
        return self.record.units.grid

    @property
    def content(self) -> Numbers:
        """Relevance of the content of every unit [units], signed, in units of the target."""
        return np.array(self.record.relevance.content)

    @property
    def position(self) -> Numbers:
        """Relevance of the positions of every unit [units], signed."""
        return np.array(self.record.relevance.position)

    @property
    def total(self) -> Numbers:
        """Relevance of every unit [units], content and position together."""
        return np.array(self.record.relevance.total)

    @property
    def score(self) -> Numbers:
        """What the method ranks units by [units]; it is no sum of the ledger."""
        return np.array(self.record.relevance.score)

    def __len__(self) -> int:
        return len(self.record.relevance.total)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Entries: ...
    def __getitem__(self, place: int | slice) -> Entry | Entries:
        return self.units[place]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.units)

    def save(self, place: str | Path) -> Path:
        """Write the explanation; the suffix of the file says how.

        ``.html``: a page; ``.png`` and ``.svg``: a picture; ``.json``: the record; ``.npz``:
        raw signed relevance at every sink. The file is written whole or not at all.

        Raises:
            UsageError: The suffix is another, or there are no raw arrays.
            OutputError: The place cannot be written to.
        """
        return write(place, self, CONTENTS)

    def to_dict(self) -> dict[str, Any]:
        """The record as dictionaries, lists, texts and numbers."""
        found: dict[str, Any] = msgspec.to_builtins(self.record)
        return found

    def to_frame(self) -> Any:
        """The units as a ``pandas.DataFrame``, one row each.

        Raises:
            ResourceError: pandas is not installed.
        """
        return self.units.to_frame()

    def warned(self, *warnings: Warning_) -> Explanation:
        """The explanation with further warnings."""
        listed = [*self.record.warnings, *warnings]
        return replace(self, record=structs.replace(self.record, warnings=listed))

    def checked(self, limits: Sequence[Limit]) -> Explanation:
        """The explanation with the verdicts of checks in its record."""
        return replace(self, record=with_checks(self.record, limits))

    def named(self, id: str) -> Explanation:
        """The explanation under another id."""
        return replace(self, record=structs.replace(self.record, id=id))

    @property
    def pictures(self) -> dict[str, Any]:
        """What pictures and pages show below the maps: images, drawn signals."""
        first, *others = (self._seen(each) for each in self.record.maps)
        names = (each.input for each in self.record.maps[1:])
        further = dict(zip(names, others, strict=True))
        return {"image": first[0], "box": first[1], "further": further}

    def _seen(self, shown: Map) -> Seen:
        """The image of an input, or its drawn signal, and the part of it that the network saw."""
        from palrp_onnx.render.timeline import TIMED, draw_signal

        if self.sample is None:
            return None, None
        kind = shown.units.kind
        if kind in TIMED:
            timed = self.sample.series(shown.input, len(shown.relevance.total))
            if timed is not None:
                return draw_signal(timed, kind), None
        return self.sample.picture_of(shown.input)

    @property
    def _text(self) -> Map:
        for each in self.record.maps:
            if each.units.kind == "token":
                return each
        raise UsageError(
            f"No explained input is a text: a unit is a {self.record.units.kind}",
            place=self.id,
            hint="Use units.",
        )


def _name(found: Prediction | Candidate) -> str | int:
    return found.index if found.label is None else found.label


def join_tensors(explanations: Iterable[Explanation]) -> dict[str, Array]:
    """The arrays of several explanations by name, joined on the batch axis.

    Raises:
        UsageError: They have none, because the explainer was compiled without them.
    """
    listed = list(explanations)
    names = list(listed[0].tensors)
    if not names:
        raise UsageError(
            "There is no raw relevance: of a record that was read, of windows, of a batch, and of "
            "an explainer that was compiled without it",
            hint="Explain the input alone; compile with --features.",
        )
    return {name: np.concatenate([e.tensors[name] for e in listed]) for name in names}


def save_tensors(tensors: Mapping[str, Array], place: Path | BinaryIO) -> None:
    """Write arrays to an ``.npz`` file, each under its name."""
    np.savez(place, **tensors)  # type: ignore[arg-type]  # no array has the name of an option


def write(
    place: str | Path, what: Saved, contents: Mapping[str, Callable[[Saved], Content]]
) -> Path:
    """Write something to a file, as its suffix says.

    Args:
        place: The file.
        what: What is written.
        contents: What makes the content of a file, by its suffix.

    Raises:
        UsageError: There is nothing for the suffix.
        OutputError: The place cannot be written to.
    """
    path = Path(place)
    write_files({path: made_for(path.suffix, what, contents)})
    return path


def made_for(
    suffix: str, what: Saved, contents: Mapping[str, Callable[[Saved], Content]]
) -> Content:
    """What a file of this suffix holds.

    Raises:
        UsageError: There is nothing for the suffix.
    """
    if suffix.lower() not in contents:
        raise UsageError(
            f"Cannot be written as {suffix or 'a file without suffix'}",
            hint=f"One of {', '.join(contents)}.",
        )
    return contents[suffix.lower()](what)


def _json(explanation: Explanation) -> Content:
    explanation.record.require_finite(place=f"sample {explanation.id}")
    return encode(explanation.record)


def _html(explanation: Explanation) -> Content:
    from palrp_onnx.render.html import render_html

    return render_html(explanation.record, **explanation.pictures)


def _png(explanation: Explanation) -> Content:
    from palrp_onnx.render.png import render_png

    return render_png(explanation.record, **explanation.pictures)


def _svg(explanation: Explanation) -> Content:
    from palrp_onnx.render.svg import render_svg

    return render_svg(explanation.record, **explanation.pictures)


#: What a file of an explanation holds, by its suffix.
CONTENTS: dict[str, Callable[[Explanation], Content]] = {
    ".html": _html,
    ".png": _png,
    ".svg": _svg,
    ".json": _json,
    ".npz": lambda each: partial(save_tensors, join_tensors([each])),
}
