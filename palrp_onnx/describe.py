"""Arrays → records: relevance per unit, with all facts that are needed to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
from msgspec import UNSET, UnsetType, structs

from palrp_onnx.engines import Outcome
from palrp_onnx.errors import InputError
from palrp_onnx.explanation import Explanation
from palrp_onnx.fidelity import doubts
from palrp_onnx.head import Head, class_warnings
from palrp_onnx.inputs.columns import ANY
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.words import Vocabulary
from palrp_onnx.record import (
    LEDGER_SUMS,
    Attribution,
    Candidate,
    Fidelity,
    Map,
    OffMap,
    Prediction,
    Relevance,
    Run,
    Site,
    TargetFacts,
    Units,
    Warning_,
    unmapped,
)
from palrp_onnx.relevance.ledger import OPEN
from palrp_onnx.relevance.target import Resolved, answer_entries
from palrp_onnx.relevance.units import Maps, pictures_of, unaligned
from palrp_onnx.subject import Subject
from palrp_onnx.types import Array

#: Number of entries of a prediction.
_TOP = 5


@dataclass(frozen=True)
class Describer:
    """Turns outcomes into explanations, one per row of the batch."""

    subject: Subject
    run: Run
    head: Head
    fidelity: Fidelity | None = None
    vocabulary: Vocabulary | None = None

    def __call__(
        self, sample: Sample, outcome: Outcome, labels: Mapping[int, str]
    ) -> list[Explanation]:
        """Describe every row."""
        output = self.subject.output
        return [
            self._row(
                sample,
                outcome,
                row,
                self._target(sample, outcome, row),
                [
                    Warning_(code=code, message=text)
                    for code, text in class_warnings(self.head, target, output, labels)
                ],
            )
            for row, target in enumerate(outcome.targets)
        ]

    def _target(self, sample: Sample, outcome: Outcome, row: int) -> TargetFacts:
        """The target, with the texts of the tokens that it is about."""
        target = describe_target(self.subject.output, outcome.targets[row], self.head)
        units = self._tokens(sample, outcome, row)
        target = structs.replace(target, along=self.subject.facts.along)
        at = target.index if target.kind == "place" else target.position
        # Tokens without a text are named by their ids.
        said = self.head.kind != "detection" and units.text != [str(each) for each in units.id]
        said = said and bool(units.start or units.id)
        if said and isinstance(at, int) and at < len(units.text):
            target = structs.replace(target, token=units.text[at])
        if target.kind == "place":
            return structs.replace(target, label=target.token)
        if target.kind == "answer" and said:
            first, last = target.places or (0, -1)
            return structs.replace(target, label=text_of(units, first, last))
        if target.kind == "span" and said:
            read = [k + 1 for k in target.places or () if k + 1 < len(units.text)]
            return structs.replace(target, label=text_of(units, read[0], read[-1]) if read else "")
        if not self.head.vocabulary or self.vocabulary is None:
            return target
        index, against = (
            self.vocabulary.text(each) if isinstance(each, int) else None
            for each in (target.index, target.against)
        )
        return structs.replace(target, label=index, against_label=against)

    def _prediction(
        self, found: Resolved, target: TargetFacts, units: Units
    ) -> Prediction | UnsetType:
        """What the model said at the place of the target, if its entries are classes or tokens."""
        if target.kind in ("region", "span", "element"):
            return UNSET
        if target.kind == "answer":
            return self._best_answer(found, target, units)
        position = None if self.head.places else target.position
        names = labels_of(self.head, self.vocabulary, units)
        return prediction(self.head, found.scores, names, position)

    def _best_answer(
        self, found: Resolved, target: TargetFacts, units: Units
    ) -> Prediction | UnsetType:
        """The best of all answers."""
        if found.best is None:
            return UNSET
        where = answer_entries(found.best, found.scores.size // 2)
        return Prediction(
            index=found.best[0],
            value=sum(float(found.scores[index]) for index, _ in where),
            label=None if target.label is None else text_of(units, *found.best),
            probability=self.head.probability(replace(found, where=where)),
        )

    def _tokens(self, sample: Sample, outcome: Outcome, row: int) -> Units:
        """The tokens that the places of the output are of."""
        maps = {self.subject.input: outcome.maps, **outcome.further}
        view = self.subject.along
        if view is None or view.input not in maps:
            return Units(kind="token")
        return _units(view, sample, maps[view.input], row)

    def _row(
        self,
        sample: Sample,
        outcome: Outcome,
        row: int,
        target: TargetFacts,
        warnings: Sequence[Warning_],
    ) -> Explanation:
        found = {self.subject.input: outcome.maps, **outcome.further}
        maps = [
            _map(view, sample, found[view.input], row)
            for view in self.subject.views
            if view.input in found
        ]
        first, *rest = maps
        ledger = {name: float(amount[row]) for name, amount in outcome.ledger.items()}
        record = Attribution(
            id=sample.id if len(outcome.targets) == 1 else f"{sample.id}-{row}",
            model=self.subject.source,
            run=self.run,
            input=sample.facts,
            target=target,
            units=first.units,
            relevance=first.relevance,
            sites=first.sites,
            ledger=ledger,
            warnings=[
                *sample.warnings,
                *self.subject.faults,
                *warnings,
                *unaligned([*found.values()]),
                *doubts(self.fidelity),
                *_open_ledger(ledger),
                *_open_maps(maps, ledger),
            ],
            fidelity=UNSET if self.fidelity is None else self.fidelity,
            input_name=first.input,
            others=rest or UNSET,
            prediction=self._prediction(
                outcome.targets[row], target, self._tokens(sample, outcome, row)
            ),
        )
        tensors = {name: array[row : row + 1] for name, array in outcome.tensors.items()}
        return Explanation(record, tensors, sample)


def labels_of(
    head: Head, vocabulary: Vocabulary | None, units: Units
) -> Callable[[int], str | None]:
    """Names of entries by index: of tokens of the input or of the vocabulary, or of classes."""
    if head.places:
        return dict(enumerate(units.text)).get
    if head.vocabulary and vocabulary is not None:
        return vocabulary.text
    return head.names.get


def prediction(
    head: Head,
    scores: Array,
    label_of: Callable[[int], str | None],
    position: int | None = None,
) -> Prediction | UnsetType:
    """The largest of entries [D] that are classes, tokens or places; unset for other numbers."""
    entries = head.classes and head.kind != "regression" and scores.shape == (head.size,)
    if scores.ndim != 1 or not (head.places or entries):
        return UNSET
    finite = np.where(np.isfinite(scores), scores, -np.inf)
    indices = [index for index in _largest(finite) if np.isfinite(scores[index])]
    top = [
        Candidate(
            index=index, value=float(scores[index]), label=label_of(index), probability=chance
        )
        for index, chance in zip(indices, head.chances(scores, indices), strict=True)
    ]
    return Prediction(**structs.asdict(top[0]), position=position, top=top) if top else UNSET


def _largest(scores: Array) -> list[int]:
    """Indices of the largest entries, the first of equal ones first; a vocabulary is not sorted."""
    least = np.partition(scores, -_TOP)[-_TOP] if scores.size > _TOP else -np.inf
    found = np.flatnonzero(scores >= least)
    order: list[int] = found[np.argsort(-scores[found], kind="stable")][:_TOP].tolist()
    return order


def _map(view: Subject, sample: Sample, maps: Maps, row: int) -> Map:
    """The map of one explained input; patches that fill up its array are no units."""
    units = _units(view, sample, maps, row)
    shown = slice(None if units.grid is None else prod(units.grid))
    whole = maps.content[row].astype(np.float64)
    content, position = whole[shown], maps.position[row][shown].astype(np.float64)
    sites = [
        Site(
            name=f"site/{s.name}",
            kind=s.kind,
            layer=s.layer,
            part=s.part,
            relevance=_floats(s.relevance[row][shown]),
            off_map=float(s.off_map[row] + s.relevance[row].sum() - s.relevance[row][shown].sum()),
        )
        for s in maps.sites
    ]
    return Map(
        input=view.input,
        units=units,
        relevance=Relevance(
            content=_floats(content),
            position=_floats(position),
            total=_floats(content + position),
            score=_floats(maps.score[row][shown]),
            off_map=OffMap(
                content=float(whole.sum() - content.sum()),
                position=float(maps.off_map[row] + sum(site.off_map for site in sites)),
            ),
        ),
        sites=sites,
    )


def _units(view: Subject, sample: Sample, maps: Maps, row: int) -> Units:
    """The units of one explained input, named by the reader of the sample or by their ids."""
    count = maps.content.shape[1]
    if maps.grid is not None:
        pictures = pictures_of(view, sample.feeds[view.input])
        return Units(kind="patch", grid=maps.grid, pictures=pictures)
    if names := _given(view, sample, count):
        return Units(kind=view.kind, text=list(names))
    known = sample.units_of(view.input, row)
    if known is not None and _is_grid(known, sample.feeds[view.input], count):
        return known
    if known is not None and len(known.text) == count:
        return known if view.kind == "token" else structs.replace(known, kind=view.kind)
    if view.kind != "token":
        return _unnamed(view, sample, count, row)
    ids = view.one(sample.feeds, row)[view.input]
    named = ids.dtype.kind in "iu" and ids.size == count
    mask = view.units_mask(sample.feeds, count)
    texts = 1 if view.rows is None else ids.shape[view.rows]
    return Units(
        kind="token",
        text=[str(i) for i in (ids.ravel().tolist() if named else range(count))],
        id=ids.ravel().tolist() if named else [],
        special=[False] * count if mask is None else (mask[row] == 0).tolist(),
        sequence=[k * texts // count for k in range(count)] if texts > 1 else [],
    )


def text_of(units: Units, first: int, last: int) -> str:
    """The text of tokens: those that are not next to each other have a space between them."""
    said = ""
    for k in range(first, last + 1):
        token = units.text[k].strip()
        spaced = units.text[k][:1].isspace()  # byte-level tokens hold the space themselves
        apart = k == first or spaced or not units.start or units.start[k] > units.end[k - 1]
        said += f" {token}" if apart else token.removeprefix("##")
    return said.strip()


def _is_grid(known: Units, array: Array, count: int) -> bool:
    """Whether units are a grid; vectors beyond it fill up the array, as its reader did it."""
    if known.grid is None:
        return False
    return prod(known.grid) == count or (prod(known.grid) < count and array.dtype.kind == "f")


def _given(view: Subject, sample: Sample, count: int) -> tuple[str, ...]:
    """Names that were given for the units of an input.

    Raises:
        InputError: They are more or fewer than its units.
    """
    own = sample.columns.get(view.input)
    names = own or sample.columns.get(ANY, ())
    fits = view.kind not in ("token", "patch") and len(names) == count
    if names and not fits and (own or (not view.further and view.columns is None)):
        raise InputError(
            f"{len(names)} names were given for the {count} {view.kind}s of input {view.input!r}",
            hint="--columns INPUT=NAMES names those of one input.",
        )
    return names if fits else ()


def _unnamed(view: Subject, sample: Sample, count: int, row: int) -> Units:
    """Units that have numbers for names; those of sound have times."""
    seconds = sample.step_of(view.input) if view.kind == "step" else None
    mask = view.units_mask(sample.feeds, count)
    return Units(
        kind=view.kind if seconds is None else "frame",
        special=[] if mask is None else (mask[row] == 0).tolist(),
        step=seconds,
    )


def _open_ledger(ledger: Mapping[str, float]) -> Iterator[Warning_]:
    """A warning if the ledger does not close."""
    missed = ledger.get("residual_relative", 0.0)
    if abs(missed) > OPEN:
        yield Warning_(
            code="open-ledger",
            message=f"the entries of the ledger miss the target by {abs(missed):.1%} of their "
            "magnitudes: the map does not account for what the model computed",
        )


def _open_maps(maps: Sequence[Map], ledger: Mapping[str, float]) -> Iterator[Warning_]:
    """A warning if maps, with what is off them, are not what the ledger says."""
    scale = sum(abs(amount) for name, amount in ledger.items() if name not in LEDGER_SUMS)
    for entry, missed in unmapped(maps, ledger).items():
        if abs(missed) > OPEN * scale:
            yield Warning_(
                code="open-map",
                message=f"the map misses the ledger's {entry} by {abs(missed) / scale:.1%} of the "
                "entries' magnitudes: units have less or more than what the model computed",
            )


def _floats(values: Array) -> list[float]:
    return [float(v) for v in values]


def describe_target(output: str, target: Resolved, head: Head) -> TargetFacts:
    """The target as the record shows it."""
    facts = TargetFacts(
        output=output,
        kind="element",
        value=target.value,
        position=target.place[0] if target.place else None,
        logprob=target.log,
        rest=target.rest,
        head=head.kind,
        head_reason=head.why or None,
    )
    if target.vector is not None:
        return structs.replace(
            facts,
            kind="cosine" if target.kind == "cosine" else "dot",
            vector=target.vector.name,
            vector_sha256=target.vector.sha256,
        )
    facts = structs.replace(facts, probability=head.probability(target))
    if target.kind == "region":
        name, cells = target.region or ("", 0)
        chosen = target.where[0][0][0] if target.where else None
        label = None if chosen is None else head.names.get(chosen)
        return structs.replace(
            facts, kind="region", index=chosen, label=label, region=name, cells=cells
        )
    if target.kind == "answer":
        half = target.scores.size // 2
        places = [index % half for (index,), _ in target.where]
        return structs.replace(facts, kind="answer", places=places)
    if target.kind == "span":
        places = [where[0] for where, _ in target.where]
        return structs.replace(facts, kind="span", places=places)
    index, _ = target.where[0]
    if head.places and target.kind == "index":
        return structs.replace(facts, kind="place", index=index[-1], position=index[-1])
    if target.kind == "element" or (target.kind == "index" and not head.classes):
        label = head.names.get(index[-1]) if target.kind == "index" else None
        position = None
        return structs.replace(facts, index=list(index), label=label, position=position)
    against = target.where[1][0][-1] if target.kind == "contrast" else None
    named: Literal["class", "token"] = "class" if facts.position is None else "token"
    return structs.replace(
        facts,
        kind=named if against is None else "contrast",
        index=index[-1],
        label=head.names.get(index[-1]),
        against=against,
        against_label=head.names.get(against) if against is not None else None,
    )
