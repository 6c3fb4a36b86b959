"""Text files → token ids and further arrays, with the place of every token in the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.conventions import TENSORS_HINT, assign_inputs, fixed_length, token_feeds
from palrp_onnx.inputs.padding import PadToken, Side, find_pad_token, find_side
from palrp_onnx.inputs.purposes import IDS, MASK, PADDING, TYPES
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.inputs.sample import GraphInput, Sample, TextWindow
from palrp_onnx.inputs.signature import describe_input
from palrp_onnx.inputs.tokenizer_checks import panics_are_errors
from palrp_onnx.inputs.tokenizer_files import tokenizer_file
from palrp_onnx.inputs.tokens import Encoding, Tokenizer, encoding_units, load_tokenizer
from palrp_onnx.inputs.truncation import Truncation, find_truncation
from palrp_onnx.record import InputFacts, Units, Unread, Warning_

#: Largest size of a text, in bytes.
TEXT_LIMIT = 4 << 20
#: Largest number of tokens if no file sets a limit.
TOKEN_LIMIT = 1 << 20

#: Code of the warning that a text is read in windows; the explainer adds what the target is.
WINDOWS = "windows"
#: Number of axes of the ids of a graph that takes several choices [B, choices, tokens].
_CHOICES = 3

_BOM = b"\xef\xbb\xbf"


def decode_text(data: bytes, *, place: str) -> str:
    """UTF-8 text of a file, without a byte order mark and without one newline at the end.

    Raises:
        InputError: The bytes are not UTF-8, or hold NUL.
    """
    skipped = len(_BOM) if data.startswith(_BOM) else 0
    try:
        text = data[skipped:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8: {error.reason} at byte {skipped + error.start}",
            place=place,
            hint="save the text as UTF-8",
        ) from error
    if "\0" in text:
        message = f"is binary, not text: NUL at byte {data.index(0)}"
        raise InputError(message, place=place)
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def read_text(path: Path) -> str:
    """The text of the file ``path``, as `decode_text` reads it.

    Raises:
        InputError: The file cannot be read, is larger than `TEXT_LIMIT`, or is not text.
    """
    text = decode_text(read_bytes(path, limit=TEXT_LIMIT), place=str(path))
    _check_text(text, str(path))
    return text


def lines_of(text: str) -> list[str]:
    r"""The lines of a text that are not blank. Only \n, also after \r, ends a line.

    `str.splitlines` also ends one at U+2028, a form feed and others, which stand inside of texts.
    """
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


@dataclass(frozen=True)
class TextRules:
    """How text becomes inputs: what `TextReader` follows.

    Attributes:
        tokenizer: The tokenizer, without truncation and padding.
        inputs: Inputs of the graph by what they receive.
        truncation: The largest number of tokens, and where it was found.
        length: The number of tokens that the graph is fixed to.
        pad: The padding token.
        side: The side of padding.
    """

    tokenizer: Tokenizer
    inputs: Mapping[str, Sequence[GraphInput]]
    truncation: Truncation | None
    length: int | None
    pad: PadToken | None
    side: Side


class TextReader:
    """Turns text into the inputs of one graph. Not thread-safe.

    Args:
        tokenizer: ``tokenizer.json``, a vocabulary file, or their folder. Padding and a limit of
            the length are read from ``tokenizer_config.json`` in the same folder.
        graph_inputs: The inputs of the graph, in graph order.
        config: ``config.json`` of the model, which names the padding token and the number of
            positions; by default the one that belongs to the tokenizer.

    Raises:
        InputError: There is no usable tokenizer, or the graph has inputs that text does not
            provide.
    """

    def __init__(
        self, tokenizer: Path, graph_inputs: Sequence[GraphInput], *, config: Path | None = None
    ) -> None:
        self._inputs = assign_inputs(graph_inputs)
        self._length = fixed_length(self._inputs)
        file = tokenizer_file(tokenizer)
        if config is None or not config.is_file():
            config = beside(file, "config.json")
        self._tokenizer = load_tokenizer(file)
        self._truncation = _tighten(find_truncation(self._tokenizer, file, config), self._length)
        self._pad = find_pad_token(config, self._tokenizer, file)
        self._side = find_side(self._tokenizer, file)
        self._tokenizer.no_padding()

    def read(
        self, text: str, *, pair: str | None = None, id: str, complete: bool = False
    ) -> Sample:
        """Encode one text, or a pair of texts; the batch has one row.

        A text that is too long is truncated, as the sample's facts and warnings then state. If the
        graph has a fixed length, the row is padded on the side that the tokenizer pads on. If the
        text begins with the tokens that the template puts first, they are not put there again. A
        text that is ``complete``, as a chat template makes it, gets no tokens of the template.

        Raises:
            InputError: The text is empty, or cannot be encoded for this graph.
        """
        if self.takes_choices:
            raise InputError(
                f"the graph takes several choices: {describe_input(self.ids)}",
                place=id,
                hint="Give them as the second text, one a line: --pair choices.txt",
            )
        return self._read(text, pair, id, complete)

    @property
    def rules(self) -> TextRules:
        """How a text is read, for readers in other languages."""
        self._tokenizer.no_truncation()
        return TextRules(
            self._tokenizer, self._inputs, self._truncation, self._length, self._pad, self._side
        )

    @property
    def takes_choices(self) -> bool:
        """Whether the graph takes several texts for each sample [B, choices, tokens]."""
        return self.ids.shape is not None and len(self.ids.shape) == _CHOICES

    def _read(self, text: str, pair: str | None, id: str, complete: bool = False) -> Sample:
        """The sample of one text or pair; of several choices, one of them."""
        for each in (text,) if pair is None else (text, pair):
            _check_text(each, id)
        encoding, warnings, twice, lost = self._encode(text, pair, id, complete)
        units = encoding_units(self._tokenizer, encoding, text, pair)
        row = _EncodedRow.of(encoding, units).after(twice)
        if twice:
            own = " ".join(encoding.tokens[:twice])
            message = f"the text begins with {own} itself, so the template does not put it there"
            warnings.append(Warning_(code="own-start", message=message))
        if all(row.units.special):
            raise InputError("the tokenizer finds no tokens in the text", place=id)
        if self._length is not None and len(row.ids) < self._length:
            row = row.padded(self._length, self._pad_token(id), self._side)
            if MASK not in self._inputs and PADDING not in self._inputs:
                warnings.append(_SEEN_PADDING)
        facts = InputFacts(
            kind="text",
            truncated=bool(lost),
            text=text,
            text_pair=pair,
            unread=Unread(tokens=lost, characters=_unread(row.units, text, pair)) if lost else None,
        )
        return Sample(
            id=id,
            kind="text",
            feeds=token_feeds(self._inputs, row.ids, mask=row.mask, types=row.types, place=id),
            facts=facts,
            units=row.units,
            warnings=tuple(warnings),
            subject=self.ids.name,
        )

    @property
    def ids(self) -> GraphInput:
        """The input that receives the ids of tokens."""
        return self._inputs[IDS][0]

    def read_windows(
        self, text: str, overlap: int | None = None, *, id: str, pair: str | None = None
    ) -> Sample:
        """Encode a text; one that is too long in windows that overlap, none of it left out.

        Every window has the special tokens of the text, and as many others as there is room for. Of
        a pair, the text that would be truncated is in windows, and the other is in each of them:
        the one that the tokenizer's strategy names, else the longer one.

        Args:
            text: The text.
            overlap: Number of tokens that two neighbours share; half of the room by default.
            id: Its id.
            pair: A second text.

        Raises:
            InputError: The text is empty or cannot be encoded for this graph, or the overlap leaves
                no room.
        """
        if self.takes_choices:
            raise InputError("a text with several choices cannot be read in windows", place=id)
        rule = self._truncation
        self._tokenizer.no_truncation()
        for each in (text,) if pair is None else (text, pair):
            _check_text(each, id)
        encoding = self._run(text, pair, id, False)
        units = encoding_units(self._tokenizer, encoding, text, pair)
        row = _EncodedRow.of(encoding, units).after(_repeated(encoding))
        total = len(row.ids)
        if rule is None or total <= rule.limit or all(row.units.special):
            return self.read(text, pair=pair, id=id)
        second, cut = _windowed(row.units, rule)
        room = rule.limit - (total - len(cut))
        if room < 1:
            raise InputError(
                f"a length of {rule.limit} has no room for windows of the "
                f"{'second' if second else 'first'} text beside {total - len(cut)} other tokens",
                place=id,
                hint="Shorten the other text.",
            )
        shared = room // 2 if overlap is None else overlap
        if not 0 <= shared < room:
            raise InputError(f"windows of {room} tokens cannot share {shared}", place=id)
        if self._length is not None and rule.limit < self._length:
            raise InputError(
                f"windows of {rule.limit} tokens do not fill the {self._length} of the graph",
                place=rule.source,
            )
        last = cut.stop - room
        starts = [*range(cut.start, last, room - shared), last]
        first, final = range(cut.start), range(cut.stop, total)
        places = [(*first, *range(start, start + room), *final) for start in starts]
        windows = [self._window(row, each, id) for each in places]
        whose = "" if pair is None else f" of the {'second' if second else 'first'} text"
        message = (
            f"{len(starts)} windows{whose} of at most {rule.limit} tokens ({rule.source}) that "
            f"share {shared}"
        )
        spans = [(row.units.start[a], row.units.end[a + room - 1]) for a in starts]
        return Sample(
            id=id,
            kind="text",
            feeds=windows[0].feeds,
            facts=InputFacts(
                kind="text",
                text=text,
                text_pair=pair,
                windows=spans,
                windows_of="text_pair" if second else "text",
            ),
            units=row.units,
            warnings=(Warning_(code=WINDOWS, message=message),),
            subject=self.ids.name,
            windows=tuple(windows),
        )

    def _window(self, row: _EncodedRow, places: tuple[int, ...], id: str) -> TextWindow:
        part = row.at(places)
        feeds = token_feeds(self._inputs, part.ids, mask=part.mask, types=part.types, place=id)
        return TextWindow(feeds, part.units, places)

    def read_rows(self, texts: Sequence[str], *, id: str) -> Sample:
        """Encode several texts as the rows of one batch, padded to the longest.

        The units are those of all rows, and the text of the facts has a line for each.

        Raises:
            InputError: A text cannot be encoded for this graph, or they have different lengths and
                there is no padding token or mask.
        """
        singles = [self.read(text, id=f"{id}, line {k}") for k, text in enumerate(texts, 1)]
        rows = self._to_longest(singles, id)
        starts = np.cumsum([0, *(len(text) + 1 for text in texts)]).tolist()
        return Sample(
            id=id,
            kind="text",
            feeds={n: np.concatenate([each.feeds[n] for each in rows]) for n in rows[0].feeds},
            facts=InputFacts(
                kind="text",
                truncated=any(single.facts.truncated for single in singles),
                text="\n".join(texts),
            ),
            units=_joined([_shifted(row, start) for row, start in zip(rows, starts, strict=False)]),
            warnings=tuple({w: None for row in rows for w in row.warnings}),
            subject=self.ids.name,
            rows=tuple(texts),
        )

    def read_choices(self, text: str, choices: Sequence[str], *, id: str) -> Sample:
        """Encode a text with each of several second texts, as one sample [1, choices, tokens].

        Shorter pairs are padded to the longest. The units are those of all pairs, and the second
        text of the facts has a line for each choice.

        Raises:
            InputError: A pair cannot be encoded for this graph, the graph takes another number of
                choices, or there is no padding token or mask.
        """
        fixed = (self.ids.shape or (None, None))[1]
        if not choices or (isinstance(fixed, int) and fixed != len(choices)):
            raise InputError(f"{len(choices)} choices; {describe_input(self.ids)}", place=id)
        singles = [self._read(text, c, f"{id}, choice {k}") for k, c in enumerate(choices, 1)]
        rows = self._to_longest(singles, id)
        starts = np.cumsum([0, *(len(choice) + 1 for choice in choices)]).tolist()
        parts = [_shifted(row, start, 1) for row, start in zip(rows, starts, strict=False)]
        return Sample(
            id=id,
            kind="text",
            feeds={n: np.stack([each.feeds[n] for each in rows], 1) for n in rows[0].feeds},
            facts=InputFacts(
                kind="text",
                truncated=any(single.facts.truncated for single in singles),
                text=text,
                text_pair="\n".join(choices),
            ),
            units=_joined(parts),
            warnings=tuple({w: None for row in rows for w in row.warnings}),
            subject=self.ids.name,
            rows=tuple(choices),
        )

    def _to_longest(self, singles: Sequence[Sample], id: str) -> list[Sample]:
        """Encoded texts of one row each, the shorter ones padded."""
        lengths = [len(single.units.id) for single in singles if single.units is not None]
        types = self._inputs.get(TYPES, ())
        rows = []
        for single, length in zip(singles, lengths, strict=True):
            if length == max(lengths):
                rows.append(single)
                continue
            assert single.units is not None
            given = single.feeds[types[0].name][0].tolist() if types else [0] * length
            row = _EncodedRow(single.units.id, [1] * length, given, single.units)
            row = row.padded(max(lengths), self._pad_token(id), self._side)
            seen = MASK not in self._inputs and PADDING not in self._inputs
            rows.append(
                replace(
                    single,
                    feeds=token_feeds(
                        self._inputs, row.ids, mask=row.mask, types=row.types, place=id
                    ),
                    units=row.units,
                    warnings=(*single.warnings, *([_SEEN_PADDING] if seen else [])),
                )
            )
        return rows

    def read_file(self, path: Path, *, pair_path: Path | None = None) -> Sample:
        """Read and encode a text file, or a pair of them; the id is the file's stem.

        Raises:
            InputError: As `read_text` and `read`.
        """
        pair = None if pair_path is None else read_text(pair_path)
        return self.read_given(read_text(path), pair, id=path.stem)

    def read_given(self, text: str, pair: str | None, *, id: str) -> Sample:
        """Encode a text; its pair is a second text, or one choice a line if the graph takes them.

        Raises:
            InputError: As `read` and `read_choices`.
        """
        if pair is None or not self.takes_choices:
            return self.read(text, pair=pair, id=id)
        return self.read_choices(text, lines_of(pair), id=id)

    def _encode(
        self, text: str, pair: str | None, id: str, complete: bool
    ) -> tuple[Encoding, list[Warning_], int, int]:
        """The encoding, warnings, and two numbers of tokens.

        They are those at its start that stand there twice, and those that were left out.
        """
        self._tokenizer.no_truncation()
        encoding = self._run(text, pair, id, complete)
        twice = _repeated(encoding)
        rule, total = self._truncation, len(encoding.ids) - twice
        if rule is None and total > TOKEN_LIMIT:
            raise InputError(f"{total:,} tokens are more than {TOKEN_LIMIT:,}", place=id)
        if rule is None or total <= rule.limit:
            return encoding, [], twice, 0
        # If no token fits next to the special ones, the library returns the whole text silently.
        added = 0
        if not complete:
            added = self._tokenizer.num_special_tokens_to_add(pair is not None)
        if added >= rule.limit:
            message = f"a length of {rule.limit} has no room for text and {added} special tokens"
            raise InputError(message, place=rule.source)
        for extra in dict.fromkeys((twice, 0)):
            self._tokenizer.enable_truncation(
                rule.limit + extra, strategy=rule.strategy, direction=rule.direction
            )
            encoding = self._run(text, pair, id, complete)
            twice = _repeated(encoding)
            if twice >= extra:  # else it was cut on the left, where they stood
                break
        kept = len(encoding.ids) - twice
        message = f"{kept} of {total} tokens were kept ({rule.source} {rule.limit})"
        return encoding, [Warning_(code="truncated", message=message)], twice, total - kept

    def _run(self, text: str, pair: str | None, id: str, complete: bool) -> Encoding:
        with panics_are_errors("cannot be tokenized", place=id):
            encoding = self._tokenizer.encode(text, pair, add_special_tokens=not complete)
        if len({len(each) for each in (encoding.ids, encoding.tokens, encoding.offsets)}) > 1:
            raise InputError("the tokenizer gives tokens and ids of different number", place=id)
        return encoding

    def _pad_token(self, id: str) -> PadToken:
        fixed = self._length is not None
        goal = f"the {self._length} tokens that the graph is fixed to" if fixed else "the longest"
        if PADDING in self._inputs:  # predictions are read where a mask is not 0
            name = self._inputs[PADDING][0].name
            raise InputError(
                f"has fewer than {goal}, and the mask {name} is 1 for padding, which is not "
                "supported",
                place=id,
                hint="export the model with a dynamic length, or with a mask that is 1 for tokens",
            )
        if self._pad is None:
            raise InputError(
                f"has fewer than {goal}, and the tokenizer has no pad token",
                place=id,
                hint="export the model with a dynamic length, or " + TENSORS_HINT,
            )
        return self._pad


@dataclass(frozen=True)
class _EncodedRow:
    """One row of the batch, one entry per token."""

    ids: list[int]
    mask: list[int]
    types: list[int]
    units: Units

    @classmethod
    def of(cls, encoding: Encoding, units: Units) -> _EncodedRow:
        return cls(list(encoding.ids), [1] * len(encoding.ids), list(encoding.type_ids), units)

    def after(self, count: int) -> _EncodedRow:
        """The row without its first tokens."""
        lists = {name: getattr(self.units, name)[count:] for name in _BY_TOKEN}
        units = msgspec.structs.replace(self.units, **lists)
        return _EncodedRow(self.ids[count:], self.mask[count:], self.types[count:], units)

    def at(self, places: Sequence[int]) -> _EncodedRow:
        """The row with some of its tokens."""

        def taken(row: list[Any]) -> list[Any]:
            return [row[place] for place in places] if row else []

        lists = {name: taken(getattr(self.units, name)) for name in _BY_TOKEN}
        units = msgspec.structs.replace(self.units, **lists)
        return _EncodedRow(taken(self.ids), taken(self.mask), taken(self.types), units)

    def padded(self, length: int, pad: PadToken, side: Side) -> _EncodedRow:
        count = length - len(self.ids)

        def fill(row: list[Any], entry: Any) -> list[Any]:
            return row + [entry] * count if side == "right" else [entry] * count + row

        own = self.units
        units = msgspec.structs.replace(
            own,
            text=fill(own.text, pad.text),
            id=fill(own.id, pad.id),
            start=fill(own.start, 0),
            end=fill(own.end, 0),
            special=fill(own.special, True),
            sequence=fill(own.sequence, own.sequence[-(side == "right")]) if own.sequence else [],
            unknown=fill(own.unknown, False) if own.unknown else [],
        )
        return _EncodedRow(fill(self.ids, pad.id), fill(self.mask, 0), fill(self.types, 0), units)


_SEEN_PADDING = Warning_(
    code="padded", message="the graph takes no attention_mask, so it sees the padding as tokens"
)
#: Lists of units with one entry for each token.
_BY_TOKEN = ("text", "id", "start", "end", "special", "sequence", "unknown")


def _unread(units: Units, text: str, pair: str | None) -> int:
    """Number of characters before the first token of each text and after its last."""
    count = 0
    for sequence, each in enumerate((text,) if pair is None else (text, pair)):
        own = [
            (start, end)
            for k, (start, end) in enumerate(zip(units.start, units.end, strict=True))
            if not units.special[k] and (units.sequence or [0] * len(units.start))[k] == sequence
        ]
        first = min((start for start, _ in own), default=len(each))
        last = max((end for _, end in own), default=len(each))
        count += len(each[:first].strip()) + len(each[last:].strip())
    return count


def _shifted(row: Sample, start: int, sequence: int = 0) -> Units:
    """Units of a row whose first or second text is a part of a longer one, from ``start`` on."""
    units = row.units
    assert units is not None
    of_pair = units.sequence or [0] * len(units.text)
    moved = {
        name: [
            place + start * (each == sequence and not special)
            for place, each, special in zip(
                getattr(units, name), of_pair, units.special, strict=True
            )
        ]
        for name in ("start", "end")
    }
    return msgspec.structs.replace(units, **moved)


def _joined(rows: Sequence[Units]) -> Units:
    """The units of several rows, one after the other."""
    if any(row.unknown for row in rows):
        rows = [
            msgspec.structs.replace(row, unknown=row.unknown or [False] * len(row.text))
            for row in rows
        ]
    lists = {name: [each for row in rows for each in getattr(row, name)] for name in _BY_TOKEN}
    return msgspec.structs.replace(rows[0], **lists)


def _windowed(units: Units, rule: Truncation) -> tuple[bool, range]:
    """Whether windows are of the second text, and the places of the text that they are of."""
    own = np.array(units.sequence or [0] * len(units.special))
    ordinary = [np.flatnonzero((own == k) & ~np.array(units.special)) for k in range(2)]
    longer = len(ordinary[1]) > len(ordinary[0])
    named = {"only_first": False, "only_second": True}.get(rule.strategy, longer)
    second = named and len(ordinary[1]) > 0
    found = ordinary[second]
    return second, range(int(found[0]), int(found[-1]) + 1)


def _repeated(encoding: Encoding) -> int:
    """Number of tokens that the template puts first and that the text begins with as well."""
    marks = [*encoding.special_tokens_mask, 0]
    count = marks.index(0)
    ids = encoding.ids
    return count if ids[:count] == ids[count : 2 * count] else 0


def _tighten(rule: Truncation | None, length: int | None) -> Truncation | None:
    """The rule, limited to the fixed length of the graph."""
    if length is None or (rule is not None and rule.limit <= length):
        return rule
    source = "the graph's fixed length"
    return Truncation(length, source) if rule is None else rule.at_most(length, source)


def _check_text(text: str, id: str) -> None:
    if not text.strip():
        raise InputError("there is no text: it is empty or blank", place=id)
    if "\0" in text:
        raise InputError(f"is binary, not text: NUL at character {text.index(chr(0))}", place=id)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"is not Unicode text: lone surrogate at character {error.start}"
        raise InputError(message, place=id) from error
