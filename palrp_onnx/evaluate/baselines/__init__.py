"""Other methods of explanation on the same file, to compare relevance with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from palrp_onnx.describe import describe_target
from palrp_onnx.engines import NumpyEngine
from palrp_onnx.errors import TargetError
from palrp_onnx.evaluate.baselines.attention_norm import attention_norm
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput, BaselineMap
from palrp_onnx.evaluate.baselines.chefer import chefer
from palrp_onnx.evaluate.baselines.gradients import integrated_gradients
from palrp_onnx.evaluate.baselines.occlusion import occlusion
from palrp_onnx.evaluate.baselines.partition_shap import partition_shap
from palrp_onnx.evaluate.baselines.rollout import rollout
from palrp_onnx.evaluate.baselines.tibav import tibav
from palrp_onnx.evaluate.baselines.value_zeroing import value_zeroing
from palrp_onnx.explainer import Explainer
from palrp_onnx.fidelity import Original
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.record import TargetFacts
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import compared_method_text
from palrp_onnx.relevance.methods import DEFAULT_METHOD, METHODS
from palrp_onnx.relevance.target import Target
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.types import Array, Feeds

#: Baselines that are not methods of relevance, by name.
BASELINES: dict[str, BaselineMap] = {
    "rollout": rollout,
    "chefer": chefer,
    "ig": integrated_gradients,
    "tibav": tibav,
    "attention-norm": attention_norm,
    "value-zeroing": value_zeroing,
    "occlusion": occlusion,
    "shap": partition_shap,
}
#: Baselines that put the unknown token somewhere.
_WITH_UNKNOWN = (integrated_gradients, occlusion, partition_shap)
#: PA-LRP with one sink for the positions of all layers.
SINGLE_SINK = "single-sink"


class Baseline:
    """Explains a model by a baseline.

    Args:
        model: The model.
        baseline: The baseline.
        dtype: As of :class:`palrp_onnx.Explainer`.
        device: Where the forward pass runs; gradients are computed in NumPy.
        output: Name of the explained output.
    """

    def __init__(
        self,
        model: Model,
        baseline: BaselineMap,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        output: str | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self._map = baseline
        self._original: Original | None = None
        self._dtype, self._output = dtype, output
        self._explainers: dict[str, Explainer] = {}
        self._explainer = self._explainer_of(METHODS["gradient-x-input"])

    def engine(self, feeds: Feeds) -> NumpyEngine:
        """The opened engine; planned once, with ``feeds`` as an example."""
        return self._engine_of(METHODS["gradient-x-input"], feeds)

    def _engine_of(self, method: Method, feeds: Feeds) -> NumpyEngine:
        engine = self._explainer_of(method).engine(feeds)
        assert isinstance(engine, NumpyEngine)
        return engine

    def _explainer_of(self, method: Method) -> Explainer:
        if method.name not in self._explainers:
            self._explainers[method.name] = Explainer(
                self.model,
                method=method,
                engine="numpy",
                dtype=self._dtype,
                device=self.device,
                output=self._output,
            )
        return self._explainers[method.name]

    def prepare(self, feeds: Feeds, target: Target | Sequence[Target]) -> BaselineInput:
        """Forward values and targets of an input, after the fidelity check.

        Raises:
            FidelityError: The rewritten graph does not compute what the file computes.
        """
        engine = self.engine(feeds)
        other = partial(self._engine_of, feeds=feeds)
        given = BaselineInput.of(engine, feeds, target, other)
        rewritten = engine.planned.analysis.model
        if rewritten.changes:
            if self._original is None:
                output = engine.planned.output
                self._original = Original(rewritten, output, device=self.device)
            self._original.check(feeds, given.values[engine.planned.output])
        return given

    def map(self, feeds: Feeds, target: Target) -> Array:
        """The map [B, units]."""
        return self._map(self.prepare(feeds, target))

    def explain(
        self, sample: Sample, target: str = "pred", labels: Mapping[int, str] | None = None
    ) -> list[tuple[TargetFacts, Array]]:
        """Target and map [units] of every row of an input."""
        names, wanted = labels or {}, parse_target(target, labels)
        if wanted.file is not None or wanted.log or wanted.kind in ("span", "answer"):
            raise TargetError(
                "Baselines explain entries of the output, neither products with a vector nor "
                "log-probabilities"
            )
        bound = self._explainer.binder(self.engine(sample.feeds), sample, names)(wanted)
        given = self.prepare(sample.feeds, bound)
        subject = given.engine.subject
        shape = subject.by_sample(given.values[subject.output]).shape
        head = self._explainer.head(subject, shape, names)
        head.check(wanted, subject.output, names)
        facts = [describe_target(subject.output, found, head) for found in given.targets]
        return list(zip(facts, self._map(given), strict=True))


#: A method that can be compared with others.
ComparedMethod = Explainer | Baseline


def compared_method(
    wanted: Method | str,
    model: Model,
    *,
    engine: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    output: str | None = None,
    unknown: int | None = None,
) -> ComparedMethod:
    """The explainer of a method, of PA-LRP with a single sink, or of a baseline.

    Args:
        wanted: A name, for methods also with parameters, ``pa-lrp-gamma:gamma=0.1``; or a method.
        model: The model.
        engine: The engine of methods; baselines always use NumPy.
        dtype: As of :class:`palrp_onnx.Explainer`.
        device: As of :class:`palrp_onnx.Explainer`.
        output: As of :class:`palrp_onnx.Explainer`.
        unknown: Id of the unknown token: where integrated gradients start, and what occlusion and
            shap put in place of a token.

    Raises:
        UsageError: There is no such method or parameter.
    """
    name = compared_method_text(wanted) if isinstance(wanted, str) else wanted
    if isinstance(name, str) and name in BASELINES:
        baseline = BASELINES[name]
        if baseline in _WITH_UNKNOWN:
            baseline = partial(baseline, unknown=unknown)
        return Baseline(model, baseline, dtype=dtype, device=device, output=output)
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
