"""What a run says as a whole: models, classes, probabilities, and the strongest words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import UNSET

from palrp_onnx.record import Attribution, TargetFacts
from palrp_onnx.render.bars import BARRED
from palrp_onnx.render.facts import model_name
from palrp_onnx.render.flow import paragraphs, visible, words
from palrp_onnx.render.titles import class_name, first_name

#: Bars of the histogram of probabilities.
BINS = 10
_CLASSES = 8
_WORDS = 8


#: A word, and its total relevance.
WordSum = tuple[str, float]


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: its name, how many records it holds, and its share of the longest."""

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Strongest:
    """The strongest words of the records with one target: word, summed relevance, occurrences."""

    target: str
    records: int
    plus: list[tuple[str, float, int]]
    minus: list[tuple[str, float, int]]


@dataclass
class RunSummary:
    """Counts of a run, record by record."""

    explained: int = 0
    failed: int = 0
    warned: int = 0
    residual: float = 0.0
    models: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    _chances: Counter[int] = field(default_factory=Counter)
    _sums: dict[str, dict[str, tuple[float, int]]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def add(self, record: Attribution) -> list[WordSum]:
        """Count one explained record; returns its words, the strongest first."""
        target = target_class(record.target)
        self.explained += 1
        self.warned += bool(record.warnings)
        self.residual = max(self.residual, record.residual)
        self.models[model_name(record)] += 1
        self.methods[f"{record.run.method}, {record.run.dtype}"] += 1
        self.versions[f"palrp-onnx {record.run.version}"] += 1
        self.targets[target] += 1
        self.predicted[predicted_class(record) or target] += 1
        if record.target.probability is not None:
            self._chances[min(int(record.target.probability * BINS), BINS - 1)] += 1
        sums = self._sums[target]
        found = list(word_sums(record))
        for word, value in found:
            before, count = sums.get(word.casefold(), (0.0, 0))
            sums[word.casefold()] = (before + value, count + 1)
        return sorted(found, key=lambda each: -abs(each[1]))

    @property
    def classes(self) -> list[tuple[str, list[Bar], int]]:
        """Bars of the most frequent predictions, where they are not the targets, and of targets.

        Each with its name, and how many values have no bar.
        """
        same = self.predicted == self.targets
        found = {"predicted": Counter() if same else self.predicted, "target": self.targets}
        return [
            (name, _bars(counts), max(len(counts) - _CLASSES, 0))
            for name, counts in found.items()
            if counts
        ]

    @property
    def probabilities(self) -> list[Bar]:
        """Records by the probability of their target; empty where none has one."""
        most = max(self._chances.values(), default=0)
        names = [f"{k / BINS:.1f} to {(k + 1) / BINS:.1f}" for k in range(BINS)] if most else []
        return [Bar(n, self._chances[k], self._chances[k] / most) for k, n in enumerate(names)]

    @property
    def words(self) -> Iterator[Strongest]:
        """The strongest words for and against each of the most frequent targets."""
        for bar in _bars(self.targets):
            found = [(word, *sums) for word, sums in self._sums[bar.name].items()]
            ranked = sorted(found, key=lambda each: (-each[1], each[0]))
            plus = [each for each in ranked[:_WORDS] if each[1] > 0]
            minus = [each for each in reversed(ranked[-_WORDS:]) if each[1] < 0]
            if plus or minus:
                yield Strongest(bar.name, bar.count, plus, minus)


def _bars(counts: Counter[str]) -> list[Bar]:
    common = counts.most_common(_CLASSES)
    return [Bar(name, count, count / common[0][1]) for name, count in common]


def predicted_class(record: Attribution) -> str | None:
    """The predicted class; ``None`` where the record does not say, or has a contrast as target."""
    found = record.prediction
    if found is UNSET or record.target.kind == "contrast":
        return None
    return visible(class_name(found.label, found.index))


def target_class(target: TargetFacts) -> str:
    """The target without its place and its probability, which differ from record to record."""
    name = first_name(target)
    if target.kind != "contrast":
        return visible(name)
    return visible(f"{name} rather than {class_name(target.against_label, target.against)}")


def word_sums(record: Attribution) -> Iterator[WordSum]:
    """Total relevance of all words of a text, or of all columns, without special tokens."""
    units, total = record.units, record.relevance.total
    if units.kind in BARRED and units.text:
        yield from zip(map(visible, units.text), total, strict=True)
    if units.kind != "token" or not units.text:
        return
    for word in words(paragraphs(units, record.input)):
        text = "".join(piece.text for piece in word)
        if not word[0].special and any(map(str.isalnum, text)):
            yield text, sum(total[piece.unit] for piece in word)
