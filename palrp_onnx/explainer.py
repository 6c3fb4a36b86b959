"""Explain: analyse and plan once, run many."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from palrp_onnx.attribution import Run
from palrp_onnx.engines import Engine, NumpyEngine, RuntimeEngine
from palrp_onnx.errors import UsageError
from palrp_onnx.graph.model import Model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.planning import plan_model
from palrp_onnx.record import Describer, Explanation
from palrp_onnx.relevance.presets import preset
from palrp_onnx.relevance.sinks import check_reduction
from palrp_onnx.relevance.target import parse_target

Feeds = Mapping[str, NDArray[Any]]

ENGINES = ("numpy", "onnxruntime")


class Explainer:
    """Explains one output of one model.

    Args:
        model: The model, or the path of its file.
        method: ``pa-lrp``, ``attnlrp``, ``pe-only`` or ``cp-lrp``.
        positions: How sinks reduce to one number: ``relu``, ``abs``, ``signed``, ``single-sink``.
        engine: ``numpy``: the walk in NumPy; ``onnxruntime``: forward and relevance in one graph.
        dtype: ``float32``: the forward pass in ONNX Runtime, as deployed; ``float64``: in NumPy.
        device: ``cpu`` or ``cuda[:N]``, for what runs in ONNX Runtime.
        output: Name of the explained output; the first that depends on the input by default.
        explain_input: Name of the input whose units the record is about; the first by default.

    Raises:
        UsageError: An option is unknown, or two contradict each other.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        method: str = "pa-lrp",
        positions: str = "relu",
        engine: str = "numpy",
        dtype: str = "float32",
        device: str = "cpu",
        output: str | None = None,
        explain_input: str | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise UsageError(f"Unknown engine {engine!r}", hint=f"Engines: {', '.join(ENGINES)}.")
        if dtype not in ("float32", "float64"):
            raise UsageError(f"Unknown dtype {dtype!r}", hint="float32 or float64.")
        if dtype == "float64" and (device != "cpu" or engine != "numpy"):
            raise UsageError(
                "float64 runs in NumPy on the CPU", hint="Use --engine numpy --device cpu."
            )
        check_reduction(positions)
        self.model = model if isinstance(model, Model) else Model.open(model)
        self.preset = preset(method)
        self.positions = positions
        self.dtype = dtype
        self.device = device
        self._kind = engine
        self._output = output
        self._explain_input = explain_input
        self._engine: Engine | None = None

    def explain(
        self, sample: Sample, target: str = "pred", labels: Mapping[int, str] | None = None
    ) -> list[Explanation]:
        """Explain one input; one explanation for every row of its batch.

        Args:
            sample: What a reader of :mod:`palrp_onnx.inputs` returned.
            target: ``pred``, an index, a label, ``A-B``, ``token:POS[:ID]`` or ``I,J,…``.
            labels: Names of classes by index.
        """
        start = time.perf_counter()
        wanted = parse_target(target, labels)
        engine = self.engine(sample.feeds)
        outcome = engine.explain(sample.feeds, wanted)
        run = self._run(engine, {**outcome.ms, "total": (time.perf_counter() - start) * 1e3})
        planned = engine.planned
        describe = Describer(self.model, planned.analysis, planned.explained, run, self.preset.map)
        return describe(sample, planned.output, outcome.relevance, outcome.targets, labels or {})

    def engine(self, feeds: Feeds) -> Engine:
        """The opened engine; analysed and planned once, with ``feeds`` as an example.

        Raises:
            InputError: The arrays are not what the graph takes.
            ModelError: The model cannot be explained as asked.
        """
        if self._engine is None:
            self._engine = self._open(feeds)
        return self._engine

    def _open(self, feeds: Feeds) -> Engine:
        compiled = self._kind == "onnxruntime"
        # Compiling appends to the graph, so it gets one of its own.
        model = Model.open(self.model.path) if compiled else self.model
        planned = plan_model(
            model,
            feeds,
            self.preset,
            output=self._output,
            explain_input=self._explain_input,
        )
        if compiled:
            return RuntimeEngine(planned, positions=self.positions, device=self.device)
        return NumpyEngine(planned, dtype=self.dtype, device=self.device)

    def _run(self, engine: Engine, ms: dict[str, float]) -> Run:
        return Run(
            version=version("palrp-onnx"),
            method=self.preset.name,
            params={"positions": self.positions},
            engine=engine.name,
            device=self.device,
            dtype="float64" if self.dtype == "float64" else "float32",
            providers=engine.providers,
            ms={name: round(value, 3) for name, value in ms.items()},
        )
