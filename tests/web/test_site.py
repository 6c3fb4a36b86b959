"""The files of a page: what is in them without a browser, and what a page refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import proto, real
from click.testing import CliRunner
from committed import MODELS

from palrp_onnx.cli.main import program
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.graph import CompileSettings
from palrp_onnx.errors import UnsupportedError, UsageError
from palrp_onnx.inputs import TextReader
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.model.open import Model
from palrp_onnx.web import runtime
from palrp_onnx.web.images import image_facts
from palrp_onnx.web.runtime import INSTALL, runtime_files
from palrp_onnx.web.site import _source, site
from palrp_onnx.web.texts import PROBES, text_facts

SCRIPTS = ("page.js", "run.js", "text.js", "image.js", "draw.js")
REQUIRED = CompileSettings(required=True)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of npm whose files have the digests that pages ask for."""
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes
    for table in ("_RUNTIME", "_FOR_TEXT"):
        known = getattr(runtime, table)
        monkeypatch.setattr(runtime, table, {k: (*v[:2], digest) for k, v in known.items()})
        for (package, _), inside, _ in known.values():
            place = tmp_path / "node_modules" / package / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    return tmp_path / "node_modules"


def made(model: Path, modules: Path, **options: Any) -> dict[str, bytes | Path]:
    data = compile_model(model, model.parent / "explainer.onnx", settings=REQUIRED, **options)
    return {path.as_posix(): content for path, content in site(data, model, modules).items()}


def text_of(content: bytes | Path) -> str:
    assert isinstance(content, bytes)
    return content.decode()


@pytest.mark.quick
def test_a_page_of_a_text_model(modules: Path) -> None:
    found = made(MODELS / "reviews-bert/model.onnx", modules)
    assert {*found} == {
        *("index.html", "style.css", "page.json", "model.onnx", "tokenizer.json"),
        *SCRIPTS,
        *("vendor/ort.wasm.min.mjs", "vendor/ort-wasm-simd-threaded.mjs"),
        *("vendor/ort-wasm-simd-threaded.wasm", "vendor/tokenizers.js"),
    }
    facts = json.loads(text_of(found["page.json"]))
    assert facts["labels"] == ["NEGATIVE", "POSITIVE"] and facts["link"] == "softmax"
    assert facts["required"] == ["target", "target_against", "target_vector"]
    assert facts["text"]["limit"] == 256
    assert (facts["text"]["before"], facts["text"]["after"]) == ([2], [3])
    explainer = onnx.load_model_from_string(found["model.onnx"])
    assert not {i.name for i in explainer.graph.initializer} & {*facts["required"]}


@pytest.mark.quick
def test_a_page_of_an_image_model(modules: Path) -> None:
    found = made(MODELS / "digits-vit/model.onnx", modules)
    assert "vendor/tokenizers.js" not in found and "tokenizer.json" not in found
    facts = json.loads(text_of(found["page.json"]))
    assert facts["image"]["moves"] == [{"resize": [16, 16], "filter": "BILINEAR"}]
    assert facts["image"]["patch"] == [2, 2] and facts["image"]["probe"]["shape"] == [1, 3, 16, 16]


@pytest.mark.quick
@pytest.mark.parametrize("name", ["reviews-rope", "digits-vit", "agreement-lm"])
def test_pages_ask_for_nothing_from_elsewhere(modules: Path, name: str) -> None:
    found = made(MODELS / name / "model.onnx", modules)
    own = [text_of(found[each]) for each in ("index.html", "style.css", *SCRIPTS)]
    addresses = {each for text in own for each in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)}
    assert addresses == {"http://127.0.0.1"}  # what to open where it was opened as a file
    page = text_of(found["index.html"])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
    assert "unsafe-inline" not in policy[1] and "*" not in policy[1]
    assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=", page)
    # Names in the page that the scripts look for.
    ids = {*re.findall(r'id="([\w-]+)"', page)} | {"position"}
    for each in re.findall(r'\bat\("([\w-]+)"\)', text_of(found["page.js"])):
        assert each in ids


@pytest.mark.quick
def test_texts_of_files_are_no_html(modules: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(MODELS / "digits-vit", tmp_path / "<b onload=x>&\u202e")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(k): f"</script><i>{k}" for k in range(10)}
    (folder / "config.json").write_text(json.dumps(config))
    page = text_of(made(folder / "model.onnx", modules)["index.html"])
    assert "&lt;b onload=x&gt;&amp;" in page and "<b onload" not in page
    assert "\u202e" not in page and "</script><i>" not in page


def test_the_command_writes_it(modules: Path, tmp_path: Path) -> None:
    model, folder = MODELS / "reviews-rope/model.onnx", tmp_path / "page"
    given = ["compile", str(model), "--web", str(folder), "--web-runtime", str(modules)]
    explainer = tmp_path / "explainer.onnx"
    result = CliRunner().invoke(program, [*given, "-o", str(explainer)])
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines() == [f"wrote {explainer}", f"wrote {folder / 'index.html'}"]
    required = [
        {p.key: p.value for p in onnx.load(path).metadata_props}["palrp_onnx.required"]
        for path in (explainer, folder / "model.onnx")
    ]
    assert required == ["", "target,target_against,target_vector"]


def test_options_of_pages_alone(tmp_path: Path) -> None:
    given = ["compile", str(MODELS / "reviews-rope/model.onnx"), "--tokenizer", str(tmp_path)]
    result = CliRunner().invoke(program, [*given, "-o", str(tmp_path / "explainer.onnx")])
    assert result.exit_code == 2 and "Only pages read texts" in result.stderr


def test_external_weights_are_copied(modules: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(MODELS / "digits-vit", tmp_path / "digits")
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin")
    found = made(folder / "model.onnx", modules)
    assert found["w.bin"] == folder / "w.bin"
    assert json.loads(text_of(found["page.json"]))["external"] == ["w.bin"]


# --- the software that it runs on -----------------------------------------------------------------
@pytest.mark.quick
def test_software_that_is_missing_or_another(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"onnxruntime-web 1\.30\.0, which is not there") as caught:
        runtime_files(tmp_path, text=False)
    assert INSTALL in caught.value.hint
    for (package, _), inside, _ in runtime._RUNTIME.values():
        (tmp_path / package / inside).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / package / inside).write_bytes(b"another")
    with pytest.raises(UsageError, match=r"not the file of onnxruntime-web 1\.30\.0"):
        runtime_files(tmp_path, text=True)


# --- what a page refuses --------------------------------------------------------------------------
def refused(model: onnx.ModelProto, folder: Path, modules: Path, **options: Any) -> str:
    path = folder / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(UnsupportedError) as caught:
        made(path, modules, **options)
    return str(caught.value)


def test_outputs_that_are_no_classes(modules: Path, tmp_path: Path) -> None:
    body = "h = Conv<kernel_shape = [1, 1]>(x, w)  y = Relu(h)"
    model = proto(body, {"x": real(2, 3, 6, 4)}, {"w": real(2, 3, 1, 1, seed=3)})
    assert "the output has 4 axes" in refused(model, tmp_path, modules)


def test_several_explained_inputs(modules: Path, tmp_path: Path) -> None:
    body = "h = Concat<axis = 1>(x, z)  p = ReduceMean<keepdims = 0>(h, axis)  y = MatMul(p, w)"
    weights = {"w": real(4, 2), "axis": np.array([1])}
    model = proto(body, {"x": real(2, 3, 4), "z": real(2, 5, 4)}, weights)
    assert "several are explained: x, z" in refused(model, tmp_path, modules)


PIXELS = GraphInput("pixels", np.dtype(np.float32), (None, 3, None, None))


def settings(folder: Path, **keys: Any) -> Path:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", **keys}))
    return path


@pytest.mark.quick
def test_moves_are_data(tmp_path: Path) -> None:
    facts = image_facts(settings(tmp_path), [PIXELS])
    assert facts["moves"] == [{"edge": 224, "filter": "BICUBIC"}, {"crop": [224, 224]}]
    assert facts["shape"] == [None, 3, None, None] and not facts["last"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"image_processor_type": "GLPNImageProcessor"}, "resizes or pads in a way"),
        ({"image_processor_type": "SamImageProcessor"}, "resizes or pads in a way|pads images"),
    ],
)
def test_other_moves(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnsupportedError, match=problem):
        image_facts(settings(tmp_path, **keys), [PIXELS])


@pytest.mark.quick
def test_half_precision_pixels(tmp_path: Path) -> None:
    half = GraphInput("pixels", np.dtype(np.float16), (None, 3, None, None))
    with pytest.raises(UnsupportedError, match="no arrays of this type: pixels float16"):
        image_facts(settings(tmp_path), [half])


@pytest.mark.quick
def test_batches(tmp_path: Path) -> None:
    several = GraphInput("pixels", np.dtype(np.float32), (4, 3, 224, 224))
    with pytest.raises(UnsupportedError, match="gives a graph one sample: pixels"):
        image_facts(settings(tmp_path), [several])


# --- texts ----------------------------------------------------------------------------------------
@pytest.mark.quick
@pytest.mark.parametrize("name", ["reviews-bert", "reviews-rope", "agreement-lm"])
def test_the_facts_make_the_arrays_of_the_reader(name: str) -> None:
    model = Model.open(MODELS / name / "model.onnx")
    reader = TextReader(MODELS / name, model.inputs)
    facts, _ = text_facts(reader)
    for text, own in facts["probes"]:
        sample = reader.read(text, id="x")
        expected = {each["name"]: sample.feeds[each["name"]] for each in facts["inputs"]}
        ids = [*facts["before"], *own, *facts["after"]]
        before, (kind,), after = facts["types"]
        types = [*before, *[kind] * len(own), *after]
        if len(ids) > (facts["limit"] or len(ids)):
            continue
        arrays = {"ids": ids, "types": types, "mask": [1] * len(ids), "positions": range(len(ids))}
        for each in facts["inputs"]:
            np.testing.assert_array_equal(expected[each["name"]], [[*arrays[each["receives"]]]])
    assert {text for text, _ in facts["probes"]} == {*PROBES}


def test_rows_of_a_fixed_length_that_cannot_be_padded(tmp_path: Path) -> None:
    folder = shutil.copytree(MODELS / "agreement-lm", tmp_path / "lm")
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json"):
        known = json.loads((folder / name).read_text())
        kept = {key: value for key, value in known.items() if not key.startswith("pad_token")}
        (folder / name).write_text(json.dumps(kept))
    inputs = Model.open(folder / "model.onnx").inputs
    fixed = [GraphInput(each.name, each.dtype, (None, 9), each.value) for each in inputs]
    with pytest.raises(UnsupportedError, match="fixed to 9 tokens"):
        text_facts(TextReader(folder, fixed))


#: A runtime whose relevance is finite from a seed on, for ``run.js`` outside of a browser.
STAND_IN = """
export const env = { wasm: {} };
export class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
const run = async (feeds) => {
  const seed = feeds.seed_scale?.data[0] ?? 1;
  console.log(seed);
  const map = { data: [seed <= LARGEST ? 1 : Infinity] };
  const maps = ["content", "position", "total", "score"].map((name) => [`relevance_${name}`, map]);
  return { y: { data: Float32Array.of(0, 1), dims: [1, 2] }, ...Object.fromEntries(maps) };
};
export const InferenceSession = { create: async () => ({ outputNames: [], run }) };
"""
CALL = """
import { Refusal, openModel } from "./run.js";
const facts = { external: [], required: REQUIRED, output: "y", axes: 2, ledger: [] };
const input = { feeds: { ids: { dims: [1, LENGTH] } }, last: 0 };
const run = await openModel(facts);
const choice = { target: -1, against: -1, position: -1 };
try { console.log((await run(input, choice)).target); }
catch (error) { console.log(error instanceof Refusal ? "refused" : error); }
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js runs the script")
@pytest.mark.parametrize(
    ("length", "largest", "half", "said"),
    [
        (255, 1e9, True, ["256", "1"]),
        (256, 1e9, True, ["512", "1"]),
        (1 << 20, 1e9, True, ["16384", "1"]),
        (1100, 20, True, ["2048", "256", "16", "1"]),
        (1100, 0, True, ["2048", "256", "16", "0.25", "refused"]),
        (8, 0, False, ["1", "refused"]),
    ],
)
def test_seeds_are_those_of_python_and_no_map_is_infinite(
    length: int, largest: float, half: bool, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "vendor").mkdir()
    stand_in = tmp_path / "vendor" / "ort.wasm.min.mjs"
    stand_in.write_text(STAND_IN.replace("LARGEST", str(largest)))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "run.js").write_text(_source("run.js"))
    required = json.dumps(["seed_scale"] if half else [])
    call = CALL.replace("REQUIRED", required).replace("LENGTH", str(length))
    (tmp_path / "call.js").write_text(call)
    done = subprocess.run(["node", "call.js"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == said, done.stderr
