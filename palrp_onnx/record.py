"""The result record: one JSON object per sample, with raw signed numbers in units of the target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from palrp_onnx.errors import ModelError
from palrp_onnx.files import to_json
from palrp_onnx.heads import HeadKind

SCHEMA: Literal["palrp-onnx/attribution/2.0"] = "palrp-onnx/attribution/2.0"

#: Entries of every ledger. ``residual = target - sum(entries)``; further explained inputs add
#: entries under their own names.
LEDGER_ENTRIES = ("content", "position", "segment", "bias", "norm", "softmax", "other")
#: Further entries of quantised models: the effect of rounding, and the difference of integer
#: kernels from exact products, (y − x W) ∘ m with y as this machine computes it.
QUANTISED_ENTRIES = ("rounding", "kernel")
#: Keys of a ledger besides its entries; ``residual_relative`` is residual / Σ |entries|.
LEDGER_SUMS = ("target", "residual", "residual_relative")
_LEDGER_KEYS = ("target", *LEDGER_ENTRIES, "residual", "residual_relative")


Ledger = Annotated[
    dict[str, float],
    Meta(
        description="target = sum of the entries + residual",
        extra_json_schema={"required": list(_LEDGER_KEYS)},
    ),
]


def _empty() -> list[Any]:
    """An empty list. A default factory, so that the key is written even if the list is empty."""
    return []


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What was explained. ``nodes`` counts the nodes of the file as it is on disk.

    ``name`` is the name of the file. ``files`` names the files of an encoder and a decoder instead,
    in this order; ``sha256`` is of both.
    """

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    opset: int
    producer: str
    nodes: int
    name: str | UnsetType = UNSET
    files: list[str] | UnsetType = UNSET


class Run(Struct, frozen=True, kw_only=True):
    """How it was explained. ``ms`` holds wall times: ``total``, and ``forward`` where known.

    ``version`` is that of this program, ``runtime`` that of ONNX Runtime. ``date`` is in UTC, as in
    ISO 8601. ``files`` has the SHA-256 of the configuration and tokenizer files that were found.
    """

    version: str
    method: str
    params: dict[str, Any]
    engine: str
    device: str
    dtype: Literal["float32", "float64"]
    providers: list[str]
    ms: dict[str, float]
    runtime: str | UnsetType = UNSET
    date: str | UnsetType = UNSET
    files: dict[str, str] | UnsetType = UNSET


class Unread(Struct, frozen=True, kw_only=True):
    """What a text has beyond the limit of the model, which did not read it."""

    tokens: int
    characters: int


class InputFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went in.

    ``size`` is the image's (width, height) before any resizing; ``seconds`` the length of the sound
    that the features are made of, and ``step`` the seconds from one entry of their time axis to the
    next. ``windows`` are the first and the last place in the text of every window, where a text
    that is longer than the model was explained in several: see :mod:`palrp_onnx.windows`; of a pair
    they are of one, ``windows_of``. ``unread`` counts what a
    truncated text lost.
    """

    kind: Literal["text", "image", "sound", "table", "tensors", "several"]
    truncated: bool = msgspec.field(default_factory=bool)
    text: str | None = None
    text_pair: str | None = None
    size: tuple[int, int] | None = None
    seconds: float | None = None
    step: float | None = None
    windows: list[tuple[int, int]] = []
    unread: Unread | None = None
    windows_of: Literal["text", "text_pair"] = "text"


class TargetFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was explained of the output: ``value`` is an entry, the logit, or the difference of two.

    ``kind`` is ``class`` or ``token`` (a class or a token of the vocabulary at a token position)
    where something says that entries are classes, else ``element``. ``index`` is the class or
    token, or all indices of an element; ``position`` the token position where the output has one.
    ``dot`` and ``cosine`` are products of the output, or of its row at ``position``, with
    ``vector``, a file: they have no index, and ``vector_sha256`` is that of its numbers as
    little-endian float64. ``probability`` is there where the model has one. ``place`` is a token of
    the input that the output scores, as the start of an answer. ``answer`` is the sum of both
    scores of an answer, whose first and last token are its ``places``. ``span`` is the sum of the
    log-probabilities of the tokens at ``places``, ``region`` the sum over ``cells`` entries of the
    output, which its name describes. ``token`` is the text of the token at ``position``;
    ``logprob``: the value is a log-probability; ``rest``: the mean of all other entries is
    subtracted. Positions count the tokens of the input ``along``, where that is not the first.
    ``head`` is the kind of the output's head, with its reason.
    """

    output: str
    kind: Literal[
        "class",
        "contrast",
        "token",
        "place",
        "answer",
        "element",
        "span",
        "region",
        "dot",
        "cosine",
    ]
    index: int | list[int] | None = None
    value: float
    position: int | None = None
    label: str | None = None
    against: int | None = None
    against_label: str | None = None
    probability: float | None = None
    vector: str | None = None
    vector_sha256: str | None = None
    token: str | None = None
    logprob: bool = False
    rest: bool = False
    places: list[int] | None = None
    region: str | None = None
    cells: int | None = None
    along: str | None = None
    head: HeadKind | None = None
    head_reason: str | None = None

    @property
    def entry(self) -> int | None:
        """Index of the explained entry in a row of the output, if the target is one entry."""
        if isinstance(self.index, list):
            return self.index[0] if len(self.index) == 1 else None
        return self.index


#: What an entry of a map is about: a token of a text, a patch of a picture, a frame (or sample) of
#: sound, a step of a series, a column of a table, a node of a graph.
UnitKind = Literal["token", "patch", "frame", "step", "column", "node"]


class Units(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What relevance is given for, in the order of the input; patches in row-major order.

    ``grid`` has the rows and columns of patches; those of a video's ``pictures`` are below each
    other, in the order of time. ``step`` is the seconds from one frame to the next. ``text`` names
    tokens, and columns that have names.

    ``unknown`` marks tokens that stand for what the vocabulary does not have; it is empty where
    there are none. ``start`` and ``end`` are Unicode code points into ``input.text``
    (``input.text_pair`` where ``sequence`` is 1); patches leave the lists of text empty.
    """

    kind: UnitKind
    text: list[str] = msgspec.field(default_factory=_empty)
    id: list[int] = msgspec.field(default_factory=_empty)
    start: list[int] = msgspec.field(default_factory=_empty)
    end: list[int] = msgspec.field(default_factory=_empty)
    special: list[bool] = msgspec.field(default_factory=_empty)
    sequence: list[int] = []
    unknown: list[bool] = []
    grid: tuple[int, int] | None = None
    pictures: int = 1
    step: float | None = None

    def name(self, unit: int) -> str:
        """A short name of a unit, for people."""
        if unit < len(self.text):
            return self.text[unit]
        if self.grid is not None:
            row, column = divmod(unit, self.grid[1])
            picture, row = divmod(row, self.grid[0] // self.pictures)
            place = f"({row}, {column})"
            return f"picture {picture} {place}" if self.pictures > 1 else place
        if self.step is not None:
            return f"{unit * self.step:.{3 if self.step < _CENTISECOND else 2}f} s"
        return f"{self.kind} {unit}"


#: Shorter steps of time are named with another digit.
_CENTISECOND = 0.01


class OffMap(Struct, frozen=True, kw_only=True):
    """Relevance that belongs to no unit: of class tokens, of padding, of sites on no map."""

    content: float = msgspec.field(default_factory=float)
    position: float = msgspec.field(default_factory=float)


#: What the map of a unit consists of.
PARTS = ("content", "position", "total", "score")


class Relevance(Struct, frozen=True, kw_only=True):
    """One number a unit, in units of the target.

    ``content`` and ``position`` are signed, and ``total`` is their sum. With what is off the map
    they make the ledger: ``Σ content + off_map.content = ledger.content`` (of the first explained
    input; that of another has its name), and ``Σ (Σ position + off_map.position) =
    ledger.position``, over the maps of all explained inputs. ``score`` is what the method ranks
    units by; it need not sum to anything. For ``pa-lrp`` it is content plus all sites, reduced as
    ``run.params.positions`` says.
    """

    content: list[float]
    position: list[float]
    total: list[float]
    score: list[float]
    off_map: OffMap = msgspec.field(default_factory=OffMap)

    def magnitudes(self) -> tuple[float, float]:
        """Σ |content| and Σ |position| over the units."""
        content, position = (sum(map(abs, part)) for part in (self.content, self.position))
        return content, position


class Site(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Signed relevance that one position sink caught, one number a unit.

    ``off_map`` is that of its places which belong to no unit: class tokens, padding.
    """

    name: str
    kind: str
    layer: int
    part: str
    relevance: list[float]
    off_map: float = 0.0


class Map(Struct, frozen=True, kw_only=True):
    """Relevance of the units of one explained input, in units of the target.

    ``input`` is the input's name in the graph.
    """

    input: str
    units: Units
    relevance: Relevance
    sites: list[Site]


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of the output."""

    index: int
    value: float
    label: str | None = None
    probability: float | None = None


class Prediction(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model said, whatever was explained: the largest entry at the target's place.

    ``top`` holds the five largest entries, the predicted one first; ``position`` is the token
    position where the output has one. Of answers it is the best one: ``index`` is its first token,
    ``label`` its text, and there is no ``top``.
    """

    index: int
    value: float
    label: str | None = None
    probability: float | None = None
    position: int | None = None
    top: list[Candidate] = msgspec.field(default_factory=_empty)


class Check(Struct, frozen=True, kw_only=True):
    """A check that was asked for, with what it found."""

    check: str
    passed: bool
    found: float | None


class Fidelity(Struct, frozen=True, kw_only=True):
    """How far the graph that was explained is from the file, in units of the explained output.

    There where something was changed before rules apply: ``rewritten`` counts files that were
    ``joined`` (they run in sessions of their own here), operations, inlined functions, branches
    (``If``), loops (``Loop``, ``Scan``), reads of a ``sequence``, ``cache`` and ``switch`` inputs,
    ``bfloat16`` values, a raised opset (``opset 9 to 13``), and sums of positions and masks (``sum
    moved``, ``sum copied``). ``difference`` is the largest over the output on this input.
    ``served`` is the same between the file to the letter and the file as ONNX Runtime optimises it,
    where it rounds activations. ``kernels`` is the same between exact products of whole numbers and
    those that the runtime computes on this machine; 0 where its kernels are exact. ``unverified``
    says why there is no difference, where ONNX Runtime cannot run the file itself.
    """

    rewritten: dict[str, int]
    difference: float | None
    allowed: float | None
    served: float = 0.0
    kernels: float = 0.0
    unverified: str | UnsetType = UNSET


class Warning_(Struct, frozen=True, kw_only=True):
    """Something the reader of the record must know."""

    code: str
    message: str


class Attribution(Struct, frozen=True, kw_only=True):
    """One explained sample.

    ``units``, ``relevance`` and ``sites`` are the map of the input ``input_name``, and ``others``
    the maps of further explained inputs. All are in units of the same target, and the ledger is one
    for all: ``content`` is the content relevance of the first, that of another has its name.
    """

    schema: Literal["palrp-onnx/attribution/2.0"] = SCHEMA
    id: str
    model: ModelFacts
    run: Run
    input: InputFacts
    target: TargetFacts
    units: Units
    relevance: Relevance
    sites: list[Site]
    ledger: Ledger
    warnings: list[Warning_]
    fidelity: Fidelity | UnsetType = UNSET
    input_name: str | UnsetType = UNSET
    others: list[Map] | UnsetType = UNSET
    prediction: Prediction | UnsetType = UNSET
    checks: list[Check] | UnsetType = UNSET

    @property
    def unknown(self) -> float:
        """Share of the text's tokens that stand for what the vocabulary does not have."""
        units = [each.units for each in self.maps if each.units.kind == "token"]
        read = sum(len(each.text) - sum(each.special) for each in units)
        return sum(sum(each.unknown) for each in units) / read if read else 0.0

    @property
    def maps(self) -> list[Map]:
        """The maps of all explained inputs, the first one first."""
        first = Map(
            input=self.input_name or "",
            units=self.units,
            relevance=self.relevance,
            sites=self.sites,
        )
        return [first, *(self.others or ())]

    @property
    def residual(self) -> float:
        """|residual_relative| of the ledger: |residual| as a share of Σ |entries|."""
        return abs(self.ledger["residual_relative"])

    @property
    def position_share(self) -> float:
        """Σ|position| / (Σ|content| + Σ|position|) over the units, 0 … 1; 0 for maps of zeros."""
        content, position = self.magnitudes()
        return position / (position + content) if position + content else 0.0

    def magnitudes(self) -> tuple[float, float]:
        """Σ |content| and Σ |position| over the units of all maps."""
        content, position = zip(*(each.relevance.magnitudes() for each in self.maps), strict=True)
        return sum(content), sum(position)

    @property
    def signed_position_share(self) -> float:
        """ΣR_P / (ΣR_E + ΣR_P) of the ledger, signed sums as in appendix F of PA-LRP.

        Signed sums can cancel, so the share may be outside of 0 … 1; it is 0 if the sum is 0.
        """
        inputs = ("content", *(each.input for each in self.others or ()))
        content = sum(self.ledger[name] for name in inputs)
        both = content + self.ledger["position"]
        return self.ledger["position"] / both if both else 0.0

    def require_finite(self, *, place: str = "") -> None:
        """Check for NaN and infinity, which would become null in JSON.

        Args:
            place: Place of the error.

        Raises:
            ModelError: The record holds NaN or infinity.
        """
        if not _is_finite(msgspec.to_builtins(self)):
            raise ModelError(
                "The result holds NaN or infinity",
                place=place,
                hint="The model overflows on this input; try --dtype float64.",
            )


def unmapped(maps: Sequence[Map], ledger: Mapping[str, float]) -> dict[str, float]:
    """What the maps of all inputs, with what is off them, leave of each entry: rounding alone."""
    if not ledger:
        return {}
    missed = {"position": ledger["position"]}
    for number, each in enumerate(maps):
        relevance, off = each.relevance, each.relevance.off_map
        entry = each.input if number else "content"
        missed[entry] = ledger[entry] - math.fsum(relevance.content) - off.content
        missed["position"] -= math.fsum(relevance.position) + off.position
    return missed


def _is_finite(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        # A list that starts with a number holds only numbers; such lists are long.
        numbers = bool(value) and isinstance(value[0], float)
        return all(map(math.isfinite if numbers else _is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def entry_names(ledger: Iterable[str]) -> list[str]:
    """Names of a ledger's entries: those of every ledger, then the others."""
    known = {*LEDGER_ENTRIES, *LEDGER_SUMS}
    return [*LEDGER_ENTRIES, *(name for name in ledger if name not in known)]


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the record, generated from the classes above."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        **msgspec.json.schema(Attribution),
    }


def encode(records: Attribution | list[Attribution], *, indent: int = 2) -> bytes:
    """JSON of one record, or of a list of them, ending in a newline."""
    return to_json(records, indent=indent)


def encode_kserve(records: Sequence[Attribution]) -> bytes:
    """The response to ``:explain`` of KServe's V1 protocol: ``{"explanations": [record, …]}``."""
    return to_json({"explanations": records})


def decode(data: bytes) -> Attribution:
    """Read a record from JSON, and validate it against the schema; one of 1.x becomes 2.0."""
    try:
        return msgspec.json.decode(data, type=Attribution)
    except msgspec.ValidationError:
        if not _is_older(data):
            raise
    return msgspec.convert(_upgraded(data), Attribution)


# --- records of 1.x -------------------------------------------------------------------------------
class _RelevanceOfOne(Struct):
    """``position`` was reduced, ``total`` was what the method ranks by; sites were signed."""

    content: list[float]
    position: list[float]
    total: list[float]


class _MapOfOne(Struct):
    relevance: _RelevanceOfOne
    sites: list[Site]


class _OtherOfOne(_MapOfOne):
    input: str


class _RecordOfOne(_MapOfOne):
    ledger: Ledger
    others: list[_OtherOfOne] = []


class _Version(Struct):
    schema: str = ""


def _is_older(data: bytes) -> bool:
    return msgspec.json.decode(data, type=_Version).schema.startswith("palrp-onnx/attribution/1.")


def _upgraded(data: bytes) -> dict[str, Any]:
    """The fields of a record of 1.x as those of 2.0.

    ``position`` is the sum of the signed sites, and ``score`` the ``total`` of 1.x. What is off the
    map is not in such records: it is what the map leaves of the ledger, rounding included.
    """
    old = msgspec.json.decode(data, type=_RecordOfOne)
    maps: list[_MapOfOne] = [old, *old.others]
    positions = [_signed_position(each) for each in maps]
    rest = old.ledger.get("position", 0.0) - sum(map(sum, positions))
    made = []
    for shown, position in zip(maps, positions, strict=True):
        content = shown.relevance.content
        entry = shown.input if isinstance(shown, _OtherOfOne) else "content"
        relevance = Relevance(
            content=content,
            position=position,
            total=[c + p for c, p in zip(content, position, strict=True)],
            score=shown.relevance.total,
            off_map=OffMap(
                content=old.ledger.get(entry, 0.0) - sum(content),
                position=rest if shown is old else 0.0,
            ),
        )
        made.append(msgspec.to_builtins(relevance))
    fields: dict[str, Any] = msgspec.json.decode(data)
    fields |= {"schema": SCHEMA, "relevance": made[0]}
    for other, relevance_ in zip(fields.get("others", ()), made[1:], strict=True):
        other["relevance"] = relevance_
    return fields


def _signed_position(shown: _MapOfOne) -> list[float]:
    relevance = shown.relevance
    count = len(relevance.content)
    sites = [site.relevance for site in shown.sites]
    if not sites and any(relevance.position):
        raise msgspec.ValidationError("a record of 1.x without the relevance of its sites")
    if any(len(values) != count for values in [*sites, relevance.total]):
        raise msgspec.ValidationError("a record of 1.x whose lists differ in length")
    return [sum(values) for values in zip(*sites, strict=True)] or [0.0] * count
