"""Parsing ``--target``: one target or several; an ambiguous text is refused.

Labels are free text, so that ``1`` may be the number of one class and the label of another. If a
text has several readings that differ, the error lists them, each with an unambiguous form: the
prefixes ``index:``, ``label:``, ``token:``, ``element:``, ``dot:`` and ``cos:`` have one reading.
Text in quotes is a token of the vocabulary, or a label; it is looked up once the output is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from palrp_onnx.errors import TargetError
from palrp_onnx.relevance.target import End, Kind, Part, Target

#: Longest text that is parsed, as records of a data set bring texts of their own.
_LONGEST = 4096
#: Most pieces between commas that one member of a list may have.
_WIDEST = 31
_COUNT = "[0-9]{1,18}"
_INDEX = f"-?{_COUNT}"
_NUMBER = re.compile(_INDEX)
_ELEMENT = re.compile(f"{_INDEX}(,{_INDEX})*")
#: Words that are targets themselves, with their kind and meaning.
_KEYWORDS: dict[str, tuple[Kind, str]] = {
    "default": ("default", "what is usually asked of the model"),
    "pred": ("pred", "the predicted class"),
    "answer": ("answer", "the best answer"),
    "all": ("all", "every class"),
}
#: Text in quotes, with the escapes of JSON.
_QUOTED = r'"(?:[^"\\]|\\.)+"'
_QUOTE = re.compile(_QUOTED)
#: The place of a token: its number, its text in quotes, or its text where that is no number.
_PLACE = rf'{_INDEX}|{_QUOTED}|(?![-0-9]+(?::|$))[^:",]+'
#: A word without quotes, where only a class or a token is possible.
_WORD = re.compile(r'(?![-0-9]+$)[^:",]+')
_RANGE = f"(?:{_INDEX})?:(?:{_INDEX})?"
_PARTS = re.compile(f"(?:{_INDEX}|{_RANGE})(?:,(?:{_INDEX}|{_RANGE}))*")
_FILE = r"[^,]+\.[A-Za-z0-9]+"
#: Prefixes of a class or a token, each with its meaning and what it changes of the target.
_OF_ENTRY: dict[str, tuple[str, dict[str, Any]]] = {
    "logprob": ("the log-probability of {}", {"log": True}),
    "rest": ("{} against the mean of the rest", {"rest": True}),
}
#: Why they are not for a contrast of two.
_NO_CONTRAST = {
    "logprob": "A contrast of two log-probabilities is the contrast of the two logits",
    "rest": "A contrast names what it is against already",
}
#: Kinds that are no member of a list.
_ALONE = ("element", "region", "all", "answer", "default")
_FORMS = (
    "pred, all, answer, an index, a label, a token in quotes, A-B, several with commas, "
    'token:POS[:CLASS], answer:"TEXT", logprob:TARGET, rest:TARGET, span:FIRST-LAST, I,J,…, '
    "region:CLASS[:MASK], dot:FILE, cos:FILE or similarity:FILE"
)


class _Reading(NamedTuple):
    """One reading of a text.

    Attributes:
        targets: The targets.
        words: The reading in words.
        form: A text for it with labels, which may be ambiguous itself.
        certain: A text for it with numbers, which has one reading.
    """

    targets: tuple[Target, ...]
    words: str
    form: str
    certain: str


def parse_target(text: str, labels: Mapping[int, str] | None = None) -> Target:
    """Parse a text that names one target; see :func:`parse_targets`.

    Raises:
        TargetError: It names none or several, or is ambiguous.
    """
    targets = parse_targets(text, labels)
    if len(targets) != 1 or targets[0].kind in ("all", "default"):
        raise TargetError(
            f"{text!r} names several targets where one is expected",
            hint="`palrp-onnx explain` takes several.",
        )
    return targets[0]


def parse_targets(text: str, labels: Mapping[int, str] | None = None) -> tuple[Target, ...]:
    """Parse a target, or a list of them.

    ``pred``, ``all``, an index, a label, a token in quotes, a contrast ``A-B`` of these,
    ``token:POS[:CLASS]`` (or ``box:``) with any of these as its class, ``logprob:`` or ``rest:``
    before one, ``answer``, ``answer:start``, ``answer:end`` or ``answer:"TEXT"``,
    ``span:FIRST-LAST``, an element ``I,J,…`` or a region with ranges ``I,:,A:B``,
    ``region:CLASS[:MASK]``, ``dot:FILE[:POS]``, ``cos:FILE[:POS]`` or ``similarity:FILE[:POS]``;
    all but elements also as a list with commas. Numbers alone, with commas, are one element.
    ``index:N``, ``index:pred``, ``index:all``, ``label:NAME`` and ``element:I,J,…`` have one
    reading.

    Args:
        text: The text.
        labels: Names of classes by index.

    Raises:
        TargetError: It is none of these, or ambiguous.
    """
    if len(text) > _LONGEST:
        raise TargetError(
            f"A target has at most {_LONGEST} characters", hint="`all` stands for every class."
        )
    names = _Names(labels or {})
    return _only(text[:200], names.readings(text), names, names.form).targets


def _only(
    text: str, readings: list[_Reading], names: _Names, form: Callable[[_Reading], str]
) -> _Reading:
    """The one reading; readings with one meaning count as one."""
    distinct = {names.meaning(each): each for each in reversed(readings)}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not distinct:
        raise TargetError(f"There is no target {text!r}", hint=f"Use {_FORMS}. {names}")
    ways = list(reversed(distinct.values()))[:4]
    raise TargetError(
        f"Target {text!r} is ambiguous: it can be " + ", or ".join(each.words for each in ways),
        hint=f"Use {' or '.join(map(form, ways))}.",
    )


class _Names:
    """The labels of a model, and the readings of texts given these labels."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self._labels = labels
        self._exact: dict[str, list[int]] = {}
        self._folded: dict[str, list[int]] = {}
        for index, name in labels.items():
            self._exact.setdefault(name.strip(), []).append(index)
            self._folded.setdefault(name.strip().casefold(), []).append(index)
        commas = max((name.count(",") for name in labels.values()), default=0)
        # Most pieces between commas that a contrast of two labels may have.
        self._span = min(2 * commas + 1, _WIDEST)

    def __str__(self) -> str:
        names = [str(name) for name in self._labels.values()]
        more = f", … ({len(names)} in all)" if len(names) > 20 else ""
        return f"Labels: {', '.join(names[:20])}{more}." if names else "The model has no labels."

    def meaning(self, reading: _Reading) -> tuple[Target, ...]:
        """The targets, with negative indices made positive where the number of classes is known."""
        count = len(self._labels)

        def front(index: int | None) -> int | None:
            return index + count if index is not None and -count <= index < 0 else index

        return tuple(
            replace(t, index=front(t.index), against=front(t.against)) for t in reading.targets
        )

    def readings(self, text: str) -> list[_Reading]:
        """Every way to read ``text``."""
        return [*self.single(text), *self.several(text)]

    def form(self, reading: _Reading) -> str:
        """An unambiguous text for a reading, with labels if possible."""
        try:
            found = {self.meaning(each) for each in self.readings(reading.form)}
        except TargetError:  # a member of a list is ambiguous
            return reading.certain
        return reading.form if found == {self.meaning(reading)} else reading.certain

    # --- one target ---------------------------------------------------------------------------
    def single(self, text: str) -> list[_Reading]:
        """Every way to read ``text`` as one target, or ``all``."""
        prefixed = self._prefixed(text)
        if prefixed:
            return prefixed
        found = self._classes(text)
        if text in _KEYWORDS:
            found.append(_keyword(text))
        if "," in text and _ELEMENT.fullmatch(text):
            found.append(_element(text))
        if ":" in text and "," in text and _PARTS.fullmatch(text):
            found.append(_ranges(text))
        contrasts = list(self._contrasts(text))
        unambiguous = [each for each, with_prefixes in contrasts if with_prefixes]
        return unambiguous or [*found, *(each for each, _ in contrasts)]

    def _prefixed(self, text: str) -> list[_Reading]:
        """The reading of a text with a prefix; several if several classes have one label."""
        if text.startswith("index:") and text.removeprefix("index:") in _KEYWORDS:
            return [_keyword(text.removeprefix("index:"))]
        if match := re.fullmatch(f"(?:token|box):({_PLACE})(?::(.+))?", text, re.DOTALL):
            return self._at_token(match[1], match[2])
        prefix, colon, inner = text.partition(":")
        if colon and prefix in _OF_ENTRY:
            return self._of_entry(prefix, inner)
        if match := re.fullmatch(f"span:({_INDEX})-({_INDEX})", text):
            return [_one_form(Target("span", span=(int(match[1]), int(match[2]))), text)]
        if match := re.fullmatch(f"answer:(start|end|{_QUOTED})", text, re.DOTALL):
            return [_answer(match[1])]
        if match := re.fullmatch(rf"(dot|cos|similarity):({_FILE})(?::({_INDEX}))?", text):
            place = int(match[3]) if match[3] else None
            cosine = match[1] != "dot"
            return [_one_form(Target("vector", position=place, file=match[2], cosine=cosine), text)]
        if match := re.fullmatch(rf"region:(.+?)(?::({_FILE}))?", text):
            return self._regions(match[1], match[2])
        element = text.removeprefix("element:")
        if element != text and _ELEMENT.fullmatch(element):
            return [_element(element)]
        if element != text and _PARTS.fullmatch(element):
            return [_ranges(element)]
        return self._named_kind(text)

    def _at_token(self, place: str, rest: str | None) -> list[_Reading]:
        """``token:PLACE[:CLASS]``, whose class may be a contrast."""
        at = _unquoted(place)
        position = None if at is not None else int(place)
        if rest is None:
            target = Target("token", position=position, at=at)
            return [_one_form(target, f"token:{place}")]
        return [
            _Reading(
                tuple(
                    replace(
                        t, kind="token" if t.kind == "index" else t.kind, position=position, at=at
                    )
                    for t in each.targets
                ),
                f"{each.words} at token {place}",
                f"token:{place}:{each.form}",
                f"token:{place}:{each.certain}",
            )
            for each in self._entries(rest)
        ]

    def _entries(self, text: str) -> list[_Reading]:
        """Every way to read ``text`` as a class, a token or a contrast of two of them."""
        found = self._named_kind(text) or self._classes(text)
        contrasts = list(self._contrasts(text))
        found += [each for each, certain in contrasts if certain or not found]
        return found or ([_word(text, text)] if _WORD.fullmatch(text) else [])

    def _of_entry(self, prefix: str, text: str) -> list[_Reading]:
        """``logprob:`` or ``rest:`` before a class or a token."""
        words, changes = _OF_ENTRY[prefix]
        found = [] if text.partition(":")[0] in _OF_ENTRY else self.single(text)
        if any(r.targets[0].kind == "contrast" for r in found):
            raise TargetError(_NO_CONTRAST[prefix], hint=f"Leave out {prefix}:.")
        return [
            _Reading(
                (replace(each.targets[0], **changes),),
                words.format(each.words),
                f"{prefix}:{each.form}",
                f"{prefix}:{each.certain}",
            )
            for each in found
            if each.targets[0].kind in ("pred", "index", "token")
        ]

    def _regions(self, name: str, mask: str | None) -> list[_Reading]:
        """``region:CLASS[:MASK]``."""
        end = "" if mask is None else f":{mask}"
        found = [_keyword(name)] if name == "pred" else self._entries(name)
        return [
            _Reading(
                (replace(each.targets[0], kind="region", file=mask, region=mask),),
                f"the region of {each.words}",
                f"region:{each.form}{end}",
                f"region:{each.certain}{end}",
            )
            for each in found
            if each.targets[0].kind in ("pred", "index")
        ]

    def _named_kind(self, text: str) -> list[_Reading]:
        """``index:N``, ``label:NAME`` or text in quotes."""
        if (word := _unquoted(text.strip())) is not None and _QUOTE.fullmatch(text.strip()):
            return [_word(text.strip(), word)]
        kind, colon, rest = text.strip().partition(":")
        if colon and kind == "index" and _NUMBER.fullmatch(rest):
            return [self._by_number(int(rest))]
        return self._by_label(rest) if colon and kind == "label" else []

    def _classes(self, text: str) -> list[_Reading]:
        """``text`` as a number and as a label."""
        text = text.strip()
        number = [self._by_number(int(text))] if _NUMBER.fullmatch(text) else []
        return [*number, *self._by_label(text)]

    def _by_number(self, index: int) -> _Reading:
        label = self._labels.get(index)
        words = f"class {index}" if label is None else f"class {index} ({label!r})"
        return _Reading((Target("index", index),), words, f"index:{index}", f"index:{index}")

    def _by_label(self, text: str) -> list[_Reading]:
        text = text.strip()
        found = self._exact.get(text) or self._folded.get(text.casefold(), [])
        return [
            _Reading(
                (Target("index", index, labelled=True),),
                f"class {index} with the label {self._labels[index]!r}",
                f"label:{self._labels[index].strip()}" if len(found) == 1 else f"index:{index}",
                f"index:{index}",
            )
            for index in found
        ]

    def _contrasts(self, text: str) -> Iterator[tuple[_Reading, bool]]:
        """Every way to read ``A-B``, and whether both A and B have a prefix."""
        for dash in (m.start() for m in re.finditer("-", text)):
            sides = text[:dash], text[dash + 1 :]
            named = [self._named_kind(side) for side in sides]
            first, second = (
                each or self._classes(side) for each, side in zip(named, sides, strict=True)
            )
            for one in first:
                for other in second:
                    yield _contrast(one, other), all(named)

    # --- several ------------------------------------------------------------------------------
    def several(self, text: str) -> list[_Reading]:
        """The ways to read ``text`` as a list; numbers alone are an element."""
        pieces = text.split(",")
        if len(pieces) == 1 or self._prefixed(text) or re.fullmatch("[-0-9,]*", text):
            return []
        ways: list[list[tuple[str, ...]]] = [[()], *([] for _ in pieces)]
        for end in range(1, len(pieces) + 1):
            for start in range(max(0, end - self._span), end):
                part = ",".join(pieces[start:end]).strip()
                if ways[start] and self._listed(part):
                    ways[end] += [(*way, part) for way in ways[start]]
            del ways[end][2:]  # two are enough to show that it is ambiguous
        return [self._list(way) for way in ways[-1]]

    def _listed(self, text: str) -> list[_Reading]:
        """The readings of a member of a list."""
        found = self.single(text)
        return [r for r in found if r.targets[0].kind not in _ALONE]

    def _list(self, parts: tuple[str, ...]) -> _Reading:
        members = [_only(part, self._listed(part), self, lambda way: way.certain) for part in parts]
        form, certain = (",".join(forms) for forms in zip(*(m[2:] for m in members), strict=True))
        targets = tuple(target for each in members for target in each.targets)
        return _Reading(targets, f"the targets {' and '.join(map(repr, parts))}", form, certain)


def _one_form(target: Target, form: str, words: str = "") -> _Reading:
    """A reading with one form."""
    return _Reading((target,), words or form, form, form)


def _unquoted(text: str) -> str | None:
    """The text of a token: without its quotes, if it has any; ``None`` for a number."""
    if _QUOTE.fullmatch(text):
        try:
            return str(json.loads(text, strict=False))
        except ValueError:  # an escape that JSON does not have
            return text[1:-1]
    return None if _NUMBER.fullmatch(text) else text


def _word(text: str, word: str) -> _Reading:
    """A class or a token by its text."""
    return _one_form(Target("index", word=word), text, f"the token {word!r}")


def _keyword(text: str) -> _Reading:
    return _one_form(Target(_KEYWORDS[text][0]), f"index:{text}", _KEYWORDS[text][1])


def _answer(text: str) -> _Reading:
    """One end of the best answer, or an answer by its text."""
    ends: dict[str, End] = {"start": "start", "end": "end"}
    target = Target("answer", end=ends.get(text), at=None if text in ends else _unquoted(text))
    return _one_form(target, f"answer:{text}")


def _element(text: str) -> _Reading:
    element = tuple(int(part) for part in text.split(","))
    return _one_form(Target("element", element=element), f"element:{text}", f"element [{text}]")


def _ranges(text: str) -> _Reading:
    """A region: an index or a range for every axis."""

    def end(number: str) -> int | None:
        return int(number) if number else None

    parts: list[Part] = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        parts.append((end(first), end(last)) if colon else int(part))
    target = Target("region", parts=tuple(parts), region=text)
    return _one_form(target, f"element:{text}", f"the region [{text}]")


def _contrast(first: _Reading, second: _Reading) -> _Reading:
    one, other = first.targets[0], second.targets[0]
    labelled = one.labelled or other.labelled
    target = Target(
        "contrast",
        one.index,
        other.index,
        labelled=labelled,
        word=one.word,
        against_word=other.word,
    )
    words = f"{first.words} against {second.words}"
    form, certain = (f"{a}-{b}" for a, b in zip(first[2:], second[2:], strict=True))
    return _Reading((target,), words, form, certain)
