"""Other ways to explain, on the same file: what relevance is held against."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from palrp_onnx.describe import describe_target
from palrp_onnx.engines import NumpyEngine
from palrp_onnx.errors import TargetError
from palrp_onnx.evaluate.baselines.chefer import chefer
from palrp_onnx.evaluate.baselines.gradients import integrated_gradients
from palrp_onnx.evaluate.baselines.question import Answer, Question
from palrp_onnx.evaluate.baselines.rollout import rollout
from palrp_onnx.explainer import Explainer
from palrp_onnx.fidelity import Original
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.record import TargetFacts
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import competitor_text
from palrp_onnx.relevance.methods import DEFAULT_METHOD
from palrp_onnx.relevance.target import Target
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.types import Array, Feeds

#: Baselines that are no method, by name.
BASELINES: dict[str, Answer] = {
    "rollout": rollout,
    "chefer": chefer,
    "ig": integrated_gradients,
}
#: PA-LRP with one sink for the positions of all layers.
SINGLE_SINK = "single-sink"


class Baseline:
    """A model that is explained by a baseline.

    Args:
        model: The model.
        answer: The baseline.
        dtype: As of :class:`palrp_onnx.Explainer`.
        device: Where the forward pass runs; gradients are walked in NumPy.
        output: Name of the explained output.
    """

    def __init__(
        self,
        model: Model,
        answer: Answer,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        output: str | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self._answer = answer
        self._original: Original | None = None
        self._explainer = Explainer(
            model,
            method="gradient-x-input",
            engine="numpy",
            dtype=dtype,
            device=device,
            output=output,
        )

    def engine(self, feeds: Feeds) -> NumpyEngine:
        """The opened engine; planned once, with ``feeds`` as an example."""
        engine = self._explainer.engine(feeds)
        assert isinstance(engine, NumpyEngine)
        return engine

    def ask(self, feeds: Feeds, target: Target) -> Question:
        """Input and target, certain that they are about what the file computes.

        Raises:
            FidelityError: The rewritten graph computes something else.
        """
        engine = self.engine(feeds)
        question = Question.ask(engine, feeds, target)
        rewritten = engine.planned.analysis.model
        if rewritten.changes:
            if self._original is None:
                output = engine.planned.output
                self._original = Original(rewritten, output, device=self.device)
            self._original.check(feeds, question.values[engine.planned.output])
        return question

    def map(self, feeds: Feeds, target: Target) -> Array:
        """Relevance a unit [B, units]."""
        return self._answer(self.ask(feeds, target))

    def explain(
        self, sample: Sample, target: str = "pred", labels: Mapping[int, str] | None = None
    ) -> list[tuple[TargetFacts, Array]]:
        """Target and map [units] of every row of an input."""
        names, wanted = labels or {}, parse_target(target, labels)
        if wanted.file is not None:
            raise TargetError("Baselines explain entries of the output, not products with a vector")
        question = self.ask(sample.feeds, wanted)
        subject = question.engine.subject
        shape = question.values[subject.output].shape
        head = self._explainer.head(subject, shape, names)
        head.check(wanted, subject.output, names)
        facts = [describe_target(subject.output, found, head) for found in question.targets]
        return list(zip(facts, self._answer(question), strict=True))


#: What takes part in a contest.
Competitor = Explainer | Baseline


def competitor(
    asked: Method | str,
    model: Model,
    *,
    engine: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    output: str | None = None,
    unknown: int | None = None,
) -> Competitor:
    """The explainer of a method, of PA-LRP with a single sink, or of a baseline.

    Args:
        asked: Its name, with numbers of its own if it is a method; or a method.
        model: The model.
        engine: That of methods; baselines walk in NumPy.
        dtype: As of :class:`palrp_onnx.Explainer`.
        device: The same.
        output: The same.
        unknown: Id of the token that integrated gradients start from, as perturbation does.

    Raises:
        UsageError: There is no such method or parameter.
    """
    name = competitor_text(asked) if isinstance(asked, str) else asked
    if isinstance(name, str) and name in BASELINES:
        answer = BASELINES[name]
        if answer is integrated_gradients:
            answer = partial(integrated_gradients, unknown=unknown)
        return Baseline(model, answer, dtype=dtype, device=device, output=output)
    single = name == SINGLE_SINK
    return Explainer(
        model,
        method=DEFAULT_METHOD if single else name,
        positions=SINGLE_SINK if single else None,
        engine=engine,
        dtype=dtype,
        device=device,
        output=output,
    )
