"""A page of static files that explains in the visitor's browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnx
from numpy.typing import NDArray

from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.compiler.triton import external_files
from palrp_onnx.errors import UnsupportedError
from palrp_onnx.files import to_json
from palrp_onnx.head import Head, find_head
from palrp_onnx.inputs import (
    GraphInput,
    TextReader,
    bind_inputs,
    default_preprocessor,
    default_tokenizer,
    read_labels,
)
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.sidecar import read_declared
from palrp_onnx.model.open import Model
from palrp_onnx.relevance.units import GRID
from palrp_onnx.render.flow import visible
from palrp_onnx.render.html import stylesheet
from palrp_onnx.render.palette import LEVELS, TABLE
from palrp_onnx.version import own_version
from palrp_onnx.web.images import image_facts
from palrp_onnx.web.runtime import NOTICE, runtime_files
from palrp_onnx.web.texts import text_facts

#: Scripts of the page.
_SCRIPTS = ("page.js", "run.js", "text.js", "image.js", "draw.js")


def site(
    explainer: bytes,
    model: Path,
    runtime: Path,
    *,
    tokenizer: Path | None = None,
    bind: Mapping[str, str] | None = None,
) -> dict[Path, bytes | Path]:
    """The files of a page, by their path in its folder.

    Args:
        explainer: A compiled explainer whose inputs for targets have no default.
        model: The model, with its tokenizer or preprocessing and its labels beside it.
        runtime: The ``node_modules`` folder with the software that the page runs on.
        tokenizer: The tokenizer, a file or a folder, if it is not beside the model.
        bind: What inputs receive of a text, where the graph leaves it open, by their names.

    Returns:
        The content of each file, or the file to copy.

    Raises:
        UnsupportedError: A page cannot read the inputs of this model, or show its output.
        UsageError: A file of the runtime is missing, or of another version.
        InputError: A file beside the model cannot be read.
    """
    proto = onnx.load_model_from_string(explainer)
    manifest = Manifest.read({each.key: each.value for each in proto.metadata_props})
    assert manifest is not None
    head = find_head(manifest, manifest.facts.shape, read_declared(model), read_labels(model))
    _check(manifest, proto)
    inputs = bind_inputs(Model.open(model).inputs, bind or {})
    made, facts = _input_facts(manifest, model, inputs, tokenizer)
    external = list(external_files(proto))
    facts |= {
        "title": model.absolute().parent.name,
        "version": own_version(),
        "method": manifest.method,
        "model": manifest.source.sha256,
        "output": manifest.output,
        "axes": manifest.axes,
        "mask": manifest.mask,
        "required": [name for name in manifest.required.split(",") if name],
        "ledger": list(manifest.ledger),
        "entries": _entries(head),
        "labels": [head.names[k] for k in range(head.size)] if head.names else None,
        "link": head.link,
        "external": external,
        "colours": {"minus": _hex(TABLE[0]), "plus": _hex(TABLE[-1]), "score": _hex(LEVELS[-1])},
        "notices": [*facts["notices"], *(each.message for each in manifest.faults)],
    }
    text = "text" in facts
    page = _environment().get_template("index.html.j2")
    found: dict[Path, bytes | Path] = {
        Path("index.html"): page.render(facts=facts, text=text, notice=NOTICE).encode(),
        Path("style.css"): (stylesheet() + "\n" + _source("page.css")).encode(),
        Path("page.json"): to_json(facts),
        Path("model.onnx"): explainer,
        **{Path(name): _source(name).encode() for name in _SCRIPTS},
        **made,
        **runtime_files(runtime, text=text),
    }
    for name in external:
        found[Path(name)] = model.resolve().parent / name
    return found


def _check(manifest: Manifest, proto: onnx.ModelProto) -> None:
    """Refuse what a page cannot show.

    Raises:
        UnsupportedError: Always of this kind.
    """
    place = f"output {manifest.output}"
    if manifest.axes not in (2, 3):
        raise UnsupportedError(
            f"A page lets visitors choose classes, and the output has {manifest.axes} axes",
            place=place,
        )
    if manifest.output_batch not in (0, None):
        raise UnsupportedError("The first axis of the output is not that of samples", place=place)
    if manifest.further:
        names = ", ".join(view.input for view in manifest.views)
        raise UnsupportedError(
            f"A page shows the map of one input, and several are explained: {names}",
            hint="Choose one with --explain-input.",
        )
    output = next(each for each in proto.graph.output if each.name == manifest.output)
    if output.type.tensor_type.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        raise UnsupportedError("A page reads outputs of 32 or 64 bits only", place=place)


def _input_facts(
    manifest: Manifest, model: Path, inputs: Sequence[GraphInput], tokenizer: Path | None
) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """Files for the input, and facts about it."""
    if manifest.image is not None:
        facts = image_facts(default_preprocessor(model), inputs)
        sizes = list(manifest.patch[-2:]) if manifest.patch is not None else None
        facts |= {"patch": sizes, "grid": GRID}
        return {}, {"image": facts, "notices": facts.pop("notices")}
    place = tokenizer or default_tokenizer(model)
    reader = TextReader(place, inputs, config=beside(model, "config.json"))
    facts, data = text_facts(reader)
    return {Path("tokenizer.json"): data}, {"text": facts, "notices": facts.pop("notices")}


def _entries(head: Head) -> str:
    """What the entries of the output are called."""
    if head.places:
        return "token"
    return "vocabulary" if head.vocabulary else "class" if head.classes else "entry"


def _hex(colour: NDArray[np.uint8]) -> str:
    return "#" + colour.tobytes().hex()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("palrp_onnx.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment


def _source(name: str) -> str:
    return files("palrp_onnx.web").joinpath("templates", name).read_text(encoding="utf-8")
