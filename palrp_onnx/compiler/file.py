"""From a model file to an explainer file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from palrp_onnx.analysis.roles import parse_roles
from palrp_onnx.analysis.sizes import usual_shapes
from palrp_onnx.compiler.forecast import Forecaster
from palrp_onnx.compiler.graph import OPSET, CompileSettings, compile_graph
from palrp_onnx.compiler.interface import is_reserved
from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.errors import LaterOpsetError, UnsupportedError, UsageError
from palrp_onnx.fidelity import Original, doubts
from palrp_onnx.inputs import read_npz
from palrp_onnx.inputs.past import open_for
from palrp_onnx.machine import Memory
from palrp_onnx.model.locate import parts_of
from palrp_onnx.model.native import with_own_products
from palrp_onnx.model.open import Model
from palrp_onnx.prepare import Planned, make_example, plan_model, run_graph
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import resolve_method
from palrp_onnx.relevance.methods import DEFAULT_METHOD
from palrp_onnx.types import Array

#: A message of protobuf is smaller than this, in bytes; a part of it is left to the graph.
_LARGEST = 2**31 - (64 << 20)


def compile_model(
    path: Path,
    destination: Path,
    *,
    method: Method | str = DEFAULT_METHOD,
    output: str | None = None,
    explain_input: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
    settings: CompileSettings | None = None,
    example: Path | None = None,
) -> bytes:
    """The explainer of the model at ``path`` as an ONNX file, to be written to ``destination``.

    Weights in external data files stay there: the explainer refers to the same files, and must
    therefore be in the model's folder. Where the model is a link, it gets copies of them. Weights
    in the model's own file are copied, too, but where they are too large for a message; then the
    explainer refers to the model's file.

    Args:
        path: The model.
        destination: Where the explainer will be written.
        method: Name of the method.
        output: Name of the explained output; required where the model has several.
        explain_input: Names of the explained inputs; by default all that the output depends on.
        roles: Roles of values by name, which override those found.
        settings: Options of the compiled graph.
        example: An ``.npz`` file with arrays for the model's inputs, instead of a synthetic
            example. It decides conditional branches and the lengths of free axes of real inputs,
            and is the trial run if the model does not run on synthetic inputs.

    Raises:
        UsageError: There is no such method, the model is an explainer, or it has external data and
            ``destination`` is in another folder.
        UnsupportedError: An input or output of the model has a reserved name.
        ModelError: The model cannot be explained, or not by a compiled graph.
        InputError: The example cannot be read, or does not fit the inputs.
    """
    chosen = resolve_method(method)
    settings = settings or CompileSettings()
    model = open_for(path, example, at_least=OPSET)
    if Manifest.read(model.metadata) is not None:
        raise UsageError("The model is an explainer already", place=str(path))
    tensors = [v.const_value for v in model.graph.initializers.values()]
    outside = [t for t in tensors if isinstance(t, ir.ExternalTensor) and not _inside(t, model)]
    linked = parts_of(model.path)[0].parent.resolve() != model.folder
    if linked and sum(t.nbytes for t in outside) >= _LARGEST:
        raise UsageError(
            "The model is a link, and too large for an explainer with weights of its own",
            place=str(path),
            hint="Copy it with its external data into one folder (cp -L), and compile it there.",
        )
    if outside and not linked and destination.resolve().parent != model.folder:
        raise UsageError(
            "The model's weights are in external data files, which the explainer shares",
            place=str(destination),
            hint=f"Write it beside the model, into {model.folder}.",
        )
    _refuse_clash(model)
    feeds = make_example(model) if example is None else read_npz(example, model.inputs).feeds

    def planned(opened: Model) -> Planned:
        return plan_model(
            opened,
            feeds,
            chosen,
            output=output,
            explain_input=explain_input,
            roles=parse_roles(roles or {}),
        )

    try:
        compiled = _compiled(planned(model), feeds, settings)
    except LaterOpsetError as error:
        model = model.at_opset(error.opset)
        compiled = _compiled(planned(model), feeds, settings)
    own = [
        (value, tensor)
        for value in compiled.graph.initializers.values()
        if isinstance(tensor := value.const_value, ir.ExternalTensor)
        and (linked or _inside(tensor, model))
    ]
    if sum(tensor.nbytes for _, tensor in own) < _LARGEST:
        for value, tensor in own:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    elif linked or destination.resolve().parent != model.folder:
        raise UsageError(
            "The model's weights are too large for an explainer of its own, which shares them",
            place=str(destination),
            hint=f"Write it beside the model, into {model.folder}.",
        )
    data: bytes = ir.serde.serialize_model(compiled).SerializeToString()
    return data


def _compiled(planned: Planned, feeds: Mapping[str, Array], settings: CompileSettings) -> ir.Model:
    """The compiled graph, after comparing the rewritten model with its file on ``feeds``."""
    rewritten = planned.analysis.model
    if rewritten.changes:
        original = Original(rewritten, planned.output)
        original.keep = False
        exact = original.kernels_exact
        checked = rewritten if exact else with_own_products(rewritten, ())
        values = run_graph(checked, feeds, [planned.output])
        fidelity = original.check(feeds, values[planned.output])
        # The error of integer kernels is a property of this machine, not of the explainer.
        lasting = tuple(w for w in doubts(fidelity) if w.code == "unverified")
        planned = replace(planned, doubts=lasting)
    shapes = usual_shapes(planned.analysis)
    memory = Memory.of(settings.memory)
    if memory.way == "auto":
        way = Forecaster(planned, prepack=True)(shapes).choose(memory)
        settings = replace(settings, memory=way)
    compiled, _ = compile_graph(replace(planned, unverified=True), settings, shapes)
    return compiled


def _refuse_clash(model: Model) -> None:
    """Refuse reserved names of inputs and outputs, which an explainer file cannot rename.

    Raises:
        UnsupportedError: The model has one.
    """
    public = (v.name or "" for v in (*model.graph.inputs, *model.graph.outputs))
    clash = next((name for name in public if is_reserved(name)), None)
    if clash is not None:
        raise UnsupportedError(
            "An input or output of the model has a name that explainers need",
            place=clash,
            hint="Rename it, or use `palrp-onnx explain`, which renames it inside.",
        )


def _inside(tensor: ir.ExternalTensor, model: Model) -> bool:
    """Whether a weight is stored in a model file itself."""
    return str(tensor.location) in {file.name for file in model.files}
