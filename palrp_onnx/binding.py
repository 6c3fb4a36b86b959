"""From a target as it was written to targets of rows: texts to ids, places by text, and defaults.

What was not said follows from the kind of head: the masked token of a masked language model, the
most probable entity of a token classifier, the most probable place of an answer, the largest class
of a picture over its own region. Language models predict the token after the last one that is not
masked, which the engines find without help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from palrp_onnx.errors import TargetError
from palrp_onnx.head import NO_OBJECT, Head
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.vectors import mask_of_places
from palrp_onnx.inputs.words import Vocabulary
from palrp_onnx.record import Units, Warning_
from palrp_onnx.relevance.target import Target, bounded
from palrp_onnx.subject import Subject
from palrp_onnx.types import Array, Box

#: The label of tokens that belong to no entity.
_OUTSIDE = "O"
#: Number of axes of a picture's places.
_PICTURE = 2
BELOW_HALF = Warning_(
    code="below-half",
    message="no label has a probability above one half: the most probable one is explained",
)


@dataclass
class Binder:
    """Binds targets to the rows of one sample.

    Attributes:
        sample: The sample.
        subject: The subject of the explanation.
        head: The head of its output.
        open_vocabulary: Opens the vocabulary of the tokenizer, if there is one.
        output: Computes the output [B, …], samples first.
        warnings: What the reader of the record of a row must know.
    """

    sample: Sample
    subject: Subject
    head: Head
    open_vocabulary: Callable[[], Vocabulary | None]
    output: Callable[[], Array]
    warnings: dict[int, list[Warning_]] = field(default_factory=dict)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary, opened only where a text or a special token is looked up."""
        return self.open_vocabulary()

    def __call__(self, target: Target) -> Target | list[Target]:
        """The target of every row, or one for all rows.

        Raises:
            TargetError: The output has no such target, or the input no such place.
        """
        target = self._counted(target)
        rows = range(self.subject.samples(self.sample.feeds))
        if self.head.kind == "segmentation" and target.kind in ("pred", "index", "region"):
            return target if target.parts else [self._region(target, row) for row in rows]
        if target.kind == "span":
            return target if target.entries else [self._span(target, row) for row in rows]
        if target.kind == "answer" or (self.subject.facts.ends and target.kind == "pred"):
            return [self._answer(target, row) for row in rows]
        if self.head.places or self.subject.facts.choices:
            return [self._place_of_answer(target, row) for row in rows]
        if target.at is not None:
            return [replace(target, at=None, position=self._at(target.at, row)) for row in rows]
        if target.position is not None and target.position < 0 and self.subject.facts.sequence:
            return [replace(target, position=self._from_end(target.position, r)) for r in rows]
        open_place = target.kind in ("pred", "index", "contrast", "token")
        if not open_place or target.position is not None:
            return target
        if self.head.kind == "masked-lm":
            return self._at_mask(target, rows)
        if self.head.kind in ("token-classification", "detection"):
            return [self._most_probable(target, row) for row in rows]
        return target

    # --- classes ----------------------------------------------------------------------------------
    def _counted(self, target: Target) -> Target:
        """The target with numbers for the words of its classes, and its link."""
        index, against = (
            number if word is None else self._entry(word)
            for number, word in (
                (target.index, target.word),
                (target.against, target.against_word),
            )
        )
        if target.kind in ("index", "contrast", "token") and not self.head.places:
            self._check_classes(index, against)
        kind = "pred" if target.kind == "default" else target.kind
        link = self.head.link if target.log else None
        return replace(
            target, kind=kind, index=index, against=against, word=None, against_word=None, link=link
        )

    def _check_classes(self, *indices: int | None) -> None:
        """Refuse a class that the output does not have."""
        size = self.head.size
        given = [index for index in indices if index is not None]
        if any(not -size <= index < size for index in given) and self.head.axis is not None:
            # An example may have fewer, as of texts that an image is compared with.
            size = self.output().shape[1:][self.head.axis]
        for index in given:
            if not -size <= index < size:
                named = [f"{i} {name}" for i, name in list(self.head.names.items())[:20]]
                raise TargetError(
                    f"Class {index} is outside of the output, which has {size}",
                    place=f"output {self.subject.output}",
                    hint=f"Its classes: {', '.join(named)}." if named else f"Use 0 to {size - 1}.",
                )

    def _entry(self, word: str) -> int:
        """The class with a label, or the token of the vocabulary with a text."""
        names = self.head.names
        exact = [i for i, name in names.items() if name.strip() == word.strip()]
        found = exact or [i for i, n in names.items() if n.casefold() == word.strip().casefold()]
        if len(found) == 1:
            return found[0]
        if found or not self.head.vocabulary:
            known = ", ".join(list(names.values())[:20])
            raise TargetError(
                f"There is no label {word!r}" if not found else f"Several classes are {word!r}",
                place=f"output {self.subject.output}",
                hint=f"Labels: {known}."
                if names
                else f"The head ({self.head.kind}) has no labels.",
            )
        if self.vocabulary is None:
            raise TargetError(
                f"There is no tokenizer that says which token {word!r} is",
                hint="Name the token by its id, or the tokenizer with --tokenizer.",
            )
        return self.vocabulary.token(word)

    # --- places -----------------------------------------------------------------------------------
    @property
    def _tokens(self) -> str:
        """Name of the input whose tokens places are of."""
        return self.subject.facts.along or self.subject.input

    def _units(self, row: int) -> Units | None:
        return self.sample.units_of(self._tokens, row)

    def _ids(self, row: int) -> Array | None:
        """Ids of the tokens of a row, if the explained input holds them."""
        one = self.subject.one(self.sample.feeds, row)[self._tokens]
        axis = self.subject.batched.get(self._tokens)
        ids = one if axis is None else one.squeeze(axis)
        return ids if ids.dtype.kind in "iu" and ids.ndim == 1 else None

    def _ordinary(self, row: int, count: int) -> Array:
        """Which of the tokens [T] are neither masked nor special."""
        kept = np.ones(count, bool)
        view = self.subject.along
        mask = None if view is None else view.units_mask(self.sample.feeds, count)
        if mask is not None:
            kept &= mask[row] != 0
        units, ids = self._units(row), self._ids(row)
        if units is not None and len(units.special) == count:
            kept &= ~np.array(units.special)
        elif self.vocabulary is not None and ids is not None and len(ids) == count:
            kept &= ~np.isin(ids, list(self.vocabulary.special))
        return kept

    def _from_end(self, position: int, row: int) -> int:
        """A place that counts from the last token that is not masked, as one from the first."""
        kept = self._kept(row)
        if not kept:
            return position
        if not -len(kept) <= position:
            raise TargetError(f"Token {position} is before the first of {len(kept)} tokens")
        return kept[position]

    def _kept(self, row: int) -> list[int]:
        """Places of the tokens of a row that are not masked; none where they are not known."""
        ids, view = self._ids(row), self.subject.along
        if ids is None or view is None:
            return []
        mask = view.units_mask(self.sample.feeds, len(ids))
        kept = np.ones(len(ids)) if mask is None else mask[row]
        return [int(place) for place in np.flatnonzero(kept)]

    def _at(self, text: str, row: int) -> int:
        """The place of the token with this text: the first of the tokens that spell it.

        Raises:
            TargetError: There is none, or several.
        """
        units = self._units(row)
        if units is None or not units.text:
            raise TargetError(
                f"The tokens of the input have no text, so that {text!r} has no place",
                hint="Name the place by its number: token:3.",
            )
        found = [k for k, each in enumerate(units.text) if each == text]
        found = found or [k for k, each in enumerate(units.text) if each.strip() == text.strip()]
        found = found or [first for first, _ in _spelled(text, units)]
        if len(found) == 1:
            return found[0]
        places = ", ".join(f"token:{k}" for k in found[:8])
        listed = " ".join(f"{k}:{each}" for k, each in enumerate(units.text[:40]))
        raise TargetError(
            f"{len(found)} tokens are {text!r}" if found else f"No token is {text!r}",
            place=f"input {self._tokens}",
            hint=f"Name the place: {places}." if found else f"Tokens: {listed}",
        )

    def _at_mask(self, target: Target, rows: Sequence[int]) -> list[Target]:
        """The target at the token that stands for a hidden one."""
        return [replace(target, position=self._masked(row)) for row in rows]

    def _masked(self, row: int) -> int | None:
        ids = self._ids(row)
        hidden = None if self.vocabulary is None else self.vocabulary.mask
        found = [] if ids is None or hidden is None else np.flatnonzero(ids == hidden).tolist()
        if found:
            if found[1:]:
                others = ", ".join(f"token:{self._named(k, row)}" for k in found[1:])
                self._warn(
                    row,
                    "several-masks",
                    f"the text has {len(found)} masked tokens: the first is explained; the others "
                    f"are --target {others}",
                )
            return int(found[0])
        if self.sample.kind == "text" and self.vocabulary is not None and hidden is not None:
            name = self.vocabulary.text(hidden)
            raise TargetError(
                f"The text has no masked token {name}, and a masked language model predicts those",
                place=self.sample.id,
                hint=f"Put {name} into the text, or name a place: --target token:3.",
            )
        self._warn(
            row,
            "no-mask",
            "no masked token was found, so the last token that is not masked out is explained: "
            "name the place with --target token:POS",
        )
        return None

    def _named(self, place: int, row: int) -> int:
        """A place as a target names it: from the end, where padding comes before the row."""
        kept = self._kept(row)
        return place if 0 in kept or place not in kept else kept.index(place) - len(kept)

    def _most_probable(self, target: Target, row: int) -> Target:
        """The place where the class is most probable; of all classes the entity that is."""
        chances = self._chances(row)
        kept = np.ones(len(chances), bool)
        if self.head.kind == "token-classification":
            kept = self._ordinary(row, len(chances))
        if not kept.any():
            return target
        if target.index is not None:
            column = chances[:, bounded(target.index, chances.shape[1])]
            return replace(target, position=int(np.where(kept, column, -np.inf).argmax()))
        none = {k for k, name in self.head.names.items() if name in (_OUTSIDE, NO_OBJECT)}
        if self.head.vocabulary and self.vocabulary is not None:
            none |= self.vocabulary.special
        entities = [k for k in range(chances.shape[1]) if k not in none]
        chosen = np.full_like(chances, -np.inf)
        chosen[:, entities] = np.where(kept[:, None], chances[:, entities], -np.inf)
        place, index = np.unravel_index(int(chosen.argmax()), chosen.shape)
        return replace(target, kind="token", index=int(index), position=int(place))

    def _chances(self, row: int) -> Array:
        """Probabilities of the entries of a row, or numbers that rise with them."""
        scores = self.output()[row].astype(np.float64)
        if self.head.link != "softmax":
            return np.asarray(scores)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

    def _place_of_answer(self, target: Target, row: int) -> Target:
        """The place, or the choice, as an entry of an output [B, tokens] or [B, choices].

        Raises:
            TargetError: A class was named, where entries are places.
        """
        if target.kind == "token" and target.index is not None:
            raise TargetError(
                "The entries of the output are the tokens of the input, without classes",
                place=f"output {self.subject.output}",
                hint="Name the place alone: token:3.",
            )
        position = target.position if target.at is None else self._at(target.at, row)
        if target.kind == "token":
            return replace(target, kind="index", index=position, position=None, at=None)
        if target.kind != "pred" or self.subject.facts.choices:
            return target
        scores = self.output()[row].astype(np.float64)
        kept = self.answers(row, len(scores))
        return replace(target, index=int(np.where(kept, scores, -np.inf).argmax()))

    def _answer(self, target: Target, row: int) -> Target:
        """The answer with this text, or of all answers the one with the largest score.

        Raises:
            TargetError: The text is not in the input, or the output is none of answers.
        """
        if self.subject.facts.ends is None:
            raise no_answer(self.subject, self.head)
        starts, ends = np.split(self.output()[row].astype(np.float64), 2)
        kept = self.answers(row, len(starts))
        best = _best_span(np.where(kept, starts, -np.inf), np.where(kept, ends, -np.inf))
        if target.at is None:
            self._warn_of_none(row, starts, ends, best)
            return replace(target, kind="answer", span=best, best=best)
        units = self._units(row)
        found = [] if units is None else _spelled(target.at, units)
        found = [(first, last) for first, last in found if kept[first] and kept[last]]
        if not found:
            raise TargetError(
                f"No answer is spelled {target.at!r}",
                place=f"input {self._tokens}",
                hint="Take it from the text word by word.",
            )
        span = max(found, key=lambda pair: starts[pair[0]] + ends[pair[1]])
        return replace(target, at=None, span=span, best=best)

    def _warn_of_none(self, row: int, starts: Array, ends: Array, span: tuple[int, int]) -> None:
        """Warn if the first token scores more than the answer: SQuAD 2.0's "there is none"."""
        none, best = ((starts[a] + ends[b]) for a, b in ([(self._kept(row) or [0])[0]] * 2, span))
        if none > best:
            self._warn(
                row,
                "no-answer",
                f"the first token has a larger score than the best answer, {none:.4g} against "
                f"{best:.4g}: a model that was trained on questions without an answer says by this "
                "that the text has none",
            )

    def likely_labels(self) -> tuple[list[int], bool]:
        """Labels of the first row with a probability above one half, else the largest; which."""
        scores = self.output()[0]
        half = 0.5 if self.head.link == "value" else 0.0
        above = [int(k) for k in np.flatnonzero(scores > half)]
        return above or [int(scores.argmax())], bool(above)

    def answers(self, row: int, count: int) -> Array:
        """Which tokens [T] may be in an answer: ordinary ones, of a pair those of the second."""
        kept, units = self._ordinary(row, count), self._units(row)
        if units is not None and len(units.sequence) == count and any(units.sequence):
            kept &= np.array(units.sequence) == 1
        return np.asarray(kept if kept.any() else np.ones(count, bool))

    # --- spans and regions ------------------------------------------------------------------------
    def _span(self, target: Target, row: int) -> Target:
        """The tokens of a span as entries of the rows before them, which predict them.

        Raises:
            TargetError: The output predicts no next tokens, or the span is not in the input.
        """
        ids = self._ids(row)
        if self.head.kind != "causal-lm" or self.head.link != "softmax" or ids is None:
            raise TargetError(
                "A span is the log-probability of tokens, each predicted by those before it",
                place=f"output {self.subject.output}, {self.head.kind}",
                hint="It needs a model that predicts next tokens, and token ids as its input.",
            )
        assert target.span is not None
        first, last = (bounded(k, len(ids)) for k in target.span)
        if not 1 <= first <= last:
            raise TargetError(
                f"The span {first}-{last} is empty, or begins with the first token, which nothing "
                "predicts",
                hint="Name its first and last token, as in span:12-18.",
            )
        entries = tuple((k - 1, int(ids[k])) for k in range(first, last + 1))
        return replace(target, log=True, entries=entries)

    def _region(self, target: Target, row: int) -> Target:
        """A class of a picture over a region: the places where it is the largest, or a mask."""
        scores = self.output()[row]
        axis = self.head.axis or 0
        axis %= scores.ndim
        if self.head.size > 1:
            winner = scores.argmax(axis=axis)
            index = target.index
            if index is None:
                index = int(np.bincount(winner.reshape(-1), minlength=self.head.size).argmax())
            index = bounded(index, self.head.size)
            cells, name = winner == index, "where it is the largest"
        else:
            half = 0.5 if self.head.link == "value" else 0
            index, cells = 0, np.take(scores, 0, axis=axis) > half
            name = f"where it is above {half}"
        if target.cells is not None:
            cells, name = self._of_places(target.cells, cells.shape, row), target.region or "mask"
        if target.cells is not None and not cells.any():
            raise TargetError(
                "The mask covers less than half of every place of the output",
                place=name,
                hint="Use a larger mask, or one in the size of the output.",
            )
        if not cells.any():
            label = self.head.names.get(index, f"class {index}")
            raise TargetError(
                f"No place of the output is {label}, so that it has no region of its own",
                place=f"output {self.subject.output}",
                hint=f"Sum it over all places: element:{_all_of(index, axis, scores.ndim)}.",
            )
        parts = tuple(index if k == axis else (None, None) for k in range(scores.ndim))
        return replace(target, kind="region", index=index, parts=parts, cells=cells, region=name)

    def _of_places(self, mask: Array, size: tuple[int, ...], row: int) -> Array:
        """A mask of the output's places, also from one in the size of the picture."""
        if mask.shape == size or mask.ndim != len(size) or mask.ndim != _PICTURE:
            return mask
        box = self._pictures().get(mask.shape)
        if box is None:
            return mask
        self._warn(
            row,
            "resized-mask",
            f"the mask has the size of the picture, and the output {size[0]} × {size[1]} places: "
            "those of which at least half is in the mask are the region",
        )
        return mask_of_places(mask, box, (size[0], size[1]))

    def _pictures(self) -> dict[tuple[int, ...], Box]:
        """Sizes (height, width) of the picture: what of it the model sees, and the original."""
        found: dict[tuple[int, ...], Box] = {}
        if (axes := self.subject.image) is not None:
            shape = self.sample.feeds[self.subject.input].shape
            high, wide = shape[axes.rows], shape[axes.columns]
            found[high, wide] = Box(left=0, top=0, right=wide, bottom=high)
        parts = (*self.sample.parts, self.sample)
        own = next((p.geometry for p in parts if p.subject == self.subject.input), None)
        if own is not None:
            found[own.size[::-1]] = own.box
        return found

    def _warn(self, row: int, code: str, message: str) -> None:
        self.warnings.setdefault(row, []).append(Warning_(code=code, message=message))


def _all_of(index: int, axis: int, rank: int) -> str:
    return ",".join(str(index) if k == axis else ":" for k in range(rank))


def _best_span(starts: Array, ends: Array) -> tuple[int, int]:
    """The first and the last token of the answer with the largest sum of the two scores [T]."""
    # The best last token from every place on, and where it is.
    best = np.maximum.accumulate(ends[::-1])[::-1]
    start = int((starts + best).argmax())
    return start, start + int(ends[start:].argmax())


def no_answer(subject: Subject, head: Head) -> TargetError:
    """The error where an answer is asked of an output that has none."""
    return TargetError(
        "The output does not say where an answer starts or ends",
        place=f"output {subject.output}, {head.kind}",
        hint="Use --target pred.",
    )


def _spelled(text: str, units: Units) -> list[tuple[int, int]]:
    """Stretches of ordinary tokens that together spell ``text``, by first and last token.

    Spaces and case do not count, as tokenizers change both.
    """
    wanted = _letters(text)
    found = []
    for start in range(len(units.text)):
        if not _letters(units.text[start]):
            continue
        spelled = ""
        for k in range(start, len(units.text)):
            if units.special and units.special[k]:
                break
            spelled += _letters(units.text[k].removeprefix("##"))
            if spelled == wanted:
                found.append((start, k))
            if len(spelled) >= len(wanted):
                break
    return found


def _letters(text: str) -> str:
    return "".join(text.split()).casefold()
