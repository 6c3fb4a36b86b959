"""Pages in a headless browser: they explain as Python does, and ask for nothing from elsewhere."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from browser import CHROMIUM, axe, needs_browser
from committed import MODELS, ROOT
from onnxruntime.transformers.float16 import convert_float_to_float16
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import palrp_onnx as px
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.graph import CompileSettings
from palrp_onnx.errors import UsageError
from palrp_onnx.files import write_files
from palrp_onnx.inputs import ImageReader
from palrp_onnx.inputs.sample import GraphInput
from palrp_onnx.web.images import image_facts
from palrp_onnx.web.runtime import runtime_files
from palrp_onnx.web.site import site

MODULES = ROOT / "node_modules"


def _missing() -> str:
    try:
        runtime_files(MODULES, text=True)
    except UsageError as error:
        return f"{error.message}: {error.place}. {error.hint}"
    return ""


pytestmark = [*needs_browser, pytest.mark.skipif(bool(_missing()), reason=_missing())]

NAMES = ("reviews-bert", "reviews-rope", "agreement-lm", "digits-vit", "clothes-vit")
TEXTS = {
    "reviews-bert": "A gripping film: naïve, but it isn't dull! I'd see it again 😀 你好世界.",
    "reviews-rope": "The plot is thin,\nand  the actors are bored; still, I laughed.",
    "agreement-lm": "the dogs near the cat",
}


#: Models that are made of a committed one.
MADE = ("fixed", "half", "external")


def variants(folder: Path) -> dict[str, Path]:
    """Files of models that are made of reviews-bert, each with the files that belong to it."""
    found = {name: shutil.copytree(MODELS / "reviews-bert", folder / name) for name in MADE}
    model = onnx.load(MODELS / "reviews-bert/model.onnx")
    onnx.save(
        model,
        found["external"] / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
    )
    model = onnx.load(MODELS / "reviews-bert/model.onnx")
    onnx.save(convert_float_to_float16(model, keep_io_types=True), found["half"] / "model.onnx")
    model = onnx.load(MODELS / "reviews-bert/model.onnx")
    for each in model.graph.input:
        each.type.tensor_type.shape.dim[1].dim_value = 40
    del model.graph.value_info[:]
    onnx.save(model, found["fixed"] / "model.onnx")
    return {name: path / "model.onnx" for name, path in found.items()}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = variants(tmp_path_factory.mktemp("models"))
    return {**{name: MODELS / name / "model.onnx" for name in NAMES}, **made}


@pytest.fixture(scope="module")
def address(paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pages")
    for name, model in paths.items():
        settings = CompileSettings(required=True)
        data = compile_model(model, model.parent / "explainer.onnx", settings=settings)
        found = site(data, model, MODULES)
        write_files({
            folder / name / place: each if isinstance(each, bytes) else each.read_bytes()
            for place, each in found.items()
        })  # fmt: skip
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser: Any, address: str, name: str, **options: Any) -> tuple[Any, list[str]]:
    """The page in a tab, loaded; and everything that it complains about, or asks others for."""
    tab = browser.new_page(**options)
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else
           complaints.append(r.url))  # fmt: skip
    tab.goto(f"{address}/{name}/")
    tab.evaluate("import('./page.js').then(page => page.ready)")
    assert tab.inner_text("#problem") == ""
    return tab, complaints


def explain(tab: Any, name: str) -> None:
    if name in TEXTS:
        tab.fill("#input", TEXTS[name])
        tab.click("#explain")
    else:
        tab.set_input_files("#input", MODELS / name / "sample.png")
    settled(tab)


def settled(tab: Any) -> None:
    tab.wait_for_selector("#status:empty", state="attached", timeout=60_000)


def shown(tab: Any) -> dict[str, Any]:
    """What the page shows, after it is done."""
    settled(tab)
    assert tab.inner_text("#problem") == ""
    found: dict[str, Any] = tab.evaluate("import('./page.js').then(page => page.shown())")
    return found


def choose(tab: Any, **choice: int) -> dict[str, Any]:
    """The explanation for a choice; the page explains when one is changed."""
    for name, value in choice.items():
        tab.select_option(f"#{name}", str(value))
        settled(tab)
    return shown(tab)


def compare(found: dict[str, Any], record: Any, tolerance: float = 1e-4) -> None:
    assert found["value"] == pytest.approx(record.target.value, rel=tolerance, abs=tolerance)
    largest = np.abs(record.relevance.total).max()
    for part in ("content", "position", "total", "score"):
        difference = np.array(found["maps"][part]) - getattr(record.relevance, part)
        assert np.abs(difference).max() <= tolerance * largest, part
    scale = sum(abs(v) for k, v in record.ledger.items() if "residual" not in k)
    for entry, amount in found["ledger"]:
        assert abs(record.ledger[entry] - amount) <= tolerance * scale, entry


# --- the same as in Python ------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_every_target(browser: Any, address: str, name: str) -> None:
    tab, complaints = opened(browser, address, name)
    model = px.load(MODELS / name)
    given = TEXTS.get(name) or MODELS / name / "sample.png"
    explain(tab, name)
    places = {"agreement-lm": (None, 2, 4)}.get(name, (None,))
    for place in places:
        before = "" if place is None else f"token:{place}:"
        if place is not None:
            choose(tab, position=place)
        compare(shown(tab), model.explain(given, f"token:{place}" if before else None).record)
        classes = len(shown(tab)["scores"])
        for index in range(classes) if classes < 11 else (0, 7, classes - 1):
            target = f"{before}{index}" if before else index
            compare(choose(tab, target=index), model.explain(given, target).record)
        if place is None:
            compare(choose(tab, target=1, against=0), model.explain(given, "1-0").record)
            choose(tab, against=-1)
        choose(tab, target=-1)
    assert complaints == []
    tab.close()


@pytest.mark.parametrize("name", MADE)
def test_other_files(browser: Any, address: str, paths: dict[str, Path], name: str) -> None:
    """Rows that are padded, half precision, weights in a file of their own."""
    tab, complaints = opened(browser, address, name)
    model = px.load(paths[name])
    tolerance = 5e-3 if name == "half" else 1e-4
    tab.fill("#input", TEXTS["reviews-bert"])
    tab.click("#explain")
    for target in (-1, 0, 1):
        given = model.explain(TEXTS["reviews-bert"], None if target < 0 else target)
        compare(choose(tab, target=target), given.record, tolerance)
    assert complaints == []
    tab.close()


def test_targets_of_many(browser: Any, address: str) -> None:
    """Of a large vocabulary the largest are offered, and any other by its number."""
    tab = browser.new_page()

    def smaller(route: Any) -> None:
        text = route.fetch().text()
        assert "ALL = 2000, LARGEST = 100" in text
        route.fulfill(
            body=text.replace("ALL = 2000, LARGEST = 100", "ALL = 5, LARGEST = 3"),
            content_type="text/javascript",
        )

    tab.route("**/page.js", smaller)
    tab.goto(f"{address}/clothes-vit/")
    tab.evaluate("import('./page.js').then(page => page.ready)")
    explain(tab, "clothes-vit")
    assert tab.locator("#target option").count() == 4
    scores = shown(tab)["scores"]
    lowest = int(np.argmin(scores))
    tab.fill("#number", str(lowest))
    tab.press("#number", "Tab")
    found = shown(tab)
    assert found["target"] == lowest and tab.input_value("#target") == str(lowest)
    given = MODELS / "clothes-vit/sample.png"
    compare(found, px.load(MODELS / "clothes-vit").explain(given, lowest).record)
    tab.close()


def test_pictures_that_lose_a_little(browser: Any, address: str, tmp_path: Path) -> None:
    """Chromium decodes JPEG as Pillow does."""
    path = tmp_path / "x.jpg"
    Image.open(MODELS / "clothes-vit/sample.png").convert("RGB").resize((90, 120)).save(path)
    tab, _ = opened(browser, address, "clothes-vit")
    tab.set_input_files("#input", path)
    compare(shown(tab), px.load(MODELS / "clothes-vit").explain(path).record)
    tab.close()


WORDS = (
    "A gripping film with Über-naïve façade … “quotes” don't can't it's 3.14 1,000 e-mail@x.y "
    "http://a.b/c?d=e #tag [MASK] [SEP] <s> </s> 你好世界 日本語テキスト こんにちは 한국어 привет "
    "العربية שלום हिन्दी ไทย İstanbul ß ŒUVRE ﬁne ½ ² 😀 👩‍👩‍👧 🇩🇪 e\u0301 A\u030a \u200b \u00a0 "
    "\u00ad \ufeff \ufffd \u2028 \x85 \t \r\n \x7f \x01 ǅ Σίσυφος ΣΑΣ ñ ǰ 𝔘𝔫𝔦 𠀀 ' '' -- !!! dogs"
).split(" ")


def trained() -> dict[str, Tokenizer]:
    """Tokenizers of kinds that the committed models do not have."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/text.md")]
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    pieces.train_from_iterator(texts, trainer)
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    unigram.train_from_iterator(texts, trainer)
    return {"byte-level": pieces, "unigram": unigram}


def all_tokenizers() -> dict[str, Tokenizer]:
    names = ("reviews-bert", "reviews-rope", "agreement-lm")
    committed = {name: Tokenizer.from_file(str(MODELS / name / "tokenizer.json")) for name in names}
    for each in committed.values():
        each.no_truncation()
    return {**committed, **trained()}


TOKENS = """async ([json, texts]) => {
  const { words } = await import('./text.js');
  const data = new TextEncoder().encode(json).buffer;
  const found = await tokenizers.Tokenizer.fromJSON(data);
  const encode = (text) => Array.from(found.encode(text));
  return texts.map((text) => { const ids = encode(text); return [ids, words(encode, text, ids)]; });
}"""


def test_tokens_and_words(browser: Any, address: str) -> None:
    tab, _ = opened(browser, address, "reviews-bert")
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(WORDS, k=drawn.randint(1, 12))) for _ in range(300)]
    for name, tokenizer in all_tokenizers().items():
        found = tab.evaluate(TOKENS, [tokenizer.to_str(), texts])
        joined = 0
        for text, (ids, words) in zip(texts, found, strict=True):
            assert ids == tokenizer.encode(text, add_special_tokens=False).ids, (name, text)
            if words is None:
                continue
            joined += 1
            assert "".join(part for part, _, _ in words) == text
            ends = [0, *(first + count for _, first, count in words)]
            assert [first for _, first, _ in words] == ends[:-1] and ends[-1] == len(ids)
        assert joined == len(texts), name
    tab.close()


PIXELS = """async ([facts, data]) => {
  const { openImage } = await import('./image.js');
  const file = await (await fetch(data)).blob();
  const { feeds, box } = await (await openImage(facts)).read(file);
  return { values: Array.from(feeds.pixels.data), dims: feeds.pixels.dims, box };
}"""

PROCESSORS: tuple[dict[str, Any], ...] = (
    *({"image_processor_type": "ViTImageProcessor", "size": {"height": 21, "width": 34},
       "resample": resample} for resample in range(6)),
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 28},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "crop_size": 28},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}},
    {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 40},
     "crop_size": {"height": 32, "width": 32}},
    {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 33, "width": 33}},
)  # fmt: skip


@pytest.mark.parametrize("channels", [3, 1])
def test_pixels_are_those_of_pillow(
    browser: Any, address: str, tmp_path: Path, channels: int
) -> None:
    tab = browser.new_page(bypass_csp=True)  # the pictures of this test come as addresses
    tab.goto(f"{address}/digits-vit/")
    noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    noise[20:, :40] = (200, 30, 90)
    pictures = [
        Image.fromarray(noise[:high, :wide]) for high, wide in ((61, 83), (40, 17), (9, 8), (61, 9))
    ]
    graph = GraphInput("pixels", np.dtype(np.float32), (None, channels, None, None))
    for keys in PROCESSORS:
        path = tmp_path / "preprocessor_config.json"
        path.write_text(json.dumps(keys if channels == 3 else {**keys, "do_normalize": False}))
        reader, facts = ImageReader(path, [graph]), image_facts(path, [graph])
        facts = {**facts, "patch": None, "grid": 14}
        for picture in pictures:
            data = io.BytesIO()
            picture.save(data, "PNG")
            encoded = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
            found = tab.evaluate(PIXELS, [facts, encoded])
            sample = reader.read(picture, id="x")
            expected, geometry = sample.feeds["pixels"], sample.geometry
            assert found["dims"] == list(expected.shape)
            np.testing.assert_array_equal(np.float32(found["values"]), expected.ravel(), str(keys))
            assert geometry is not None
            box = geometry.box
            sides = [box.left, box.top, box.right - box.left, box.bottom - box.top]
            np.testing.assert_allclose(found["box"], sides)
    tab.close()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "quality": 60, "subsampling": 0}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_pictures_are_decoded_as_by_pillow(
    browser: Any, address: str, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    steps = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": "ViTImageProcessor", **steps}))
    graph = [GraphInput("pixels", np.dtype(np.float32), (None, 3, None, None))]
    noise = np.random.default_rng(0).integers(0, 256, (64, 83, 3), np.uint8)
    noise[20:, :40] = (200, 30, 90)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, kind, **options)
    facts = {**image_facts(path, graph), "patch": None, "grid": 14}
    encoded = f"data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"
    tab = browser.new_page(bypass_csp=True)
    tab.goto(f"{address}/digits-vit/")
    found = tab.evaluate(PIXELS, [facts, encoded])
    expected = ImageReader(path, graph).read(Image.open(data), id="x").feeds["pixels"]
    np.testing.assert_array_equal(np.float32(found["values"]), expected.ravel())
    tab.close()


# --- what a visitor sees --------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["reviews-bert", "agreement-lm", "digits-vit"])
def test_the_page_is_accessible_and_fits(browser: Any, address: str, name: str) -> None:
    tab, complaints = opened(browser, address, name, bypass_csp=True)
    explain(tab, name)
    tab.evaluate(axe())
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for width, style in ((390, "dark"), (1280, "light")):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=style)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        for show in ("total", "position", "score"):
            if tab.is_visible(f"[data-show={show}]"):
                tab.click(f"[data-show={show}]")
            faults = tab.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
            serious = [each for each in faults if each["impact"] in ("serious", "critical")]
            assert serious == [], (width, show)
    assert complaints == []
    tab.close()


def test_the_keyboard_reads_the_map(browser: Any, address: str) -> None:
    tab, _ = opened(browser, address, "reviews-rope")
    explain(tab, "reviews-rope")
    tab.focus("#map .text")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
    assert tab.inner_text("#readout").startswith("The: total ")
    tab.click("[data-by=tokens]")
    assert tab.locator("#map .w").count() > 10
    tab.close()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  ", "There is no text."),
        ("word " * 300, "The text has 302 tokens, and the model reads at most 256: shorten it."),
    ],
)
def test_texts_that_cannot_be_explained(
    browser: Any, address: str, text: str, problem: str
) -> None:
    tab, complaints = opened(browser, address, "reviews-bert")
    tab.fill("#input", text)
    tab.click("#explain")
    tab.wait_for_selector("#problem:not([hidden])")
    assert tab.inner_text("#problem") == problem
    assert tab.is_hidden("#result")
    explain(tab, "reviews-bert")
    assert tab.is_hidden("#problem") and tab.is_visible("#result") and complaints == []
    tab.close()


@pytest.mark.parametrize(
    ("mode", "problem"), [("RGBA", "transparent"), ("CMYK", "CMYK"), ("I;16", "16 bits")]
)
def test_pictures_that_browsers_change(
    browser: Any, address: str, tmp_path: Path, mode: str, problem: str
) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new(mode, (20, 20)).save(path)
    tab, _ = opened(browser, address, "digits-vit")
    tab.set_input_files("#input", path)
    tab.wait_for_selector("#problem:not([hidden])")
    assert problem in tab.inner_text("#problem")
    tab.close()


def test_a_tokenizer_that_differs_is_noticed(browser: Any, address: str) -> None:
    tab = browser.new_page()

    def changed(route: Any) -> None:
        facts = route.fetch().json()
        facts["text"]["probes"][0][1][0] += 1
        route.fulfill(json=facts)

    tab.route("**/page.json", changed)
    tab.goto(f"{address}/reviews-bert/")
    tab.wait_for_selector("#problem:not([hidden])")
    assert "does not work in this browser as it does in Python" in tab.inner_text("#problem")
    assert tab.is_disabled("#explain")
    tab.close()


def test_a_page_that_was_opened_as_a_file_says_so(
    browser: Any, address: str, tmp_path: Path
) -> None:
    tab = browser.new_page()
    page = tab.request.get(f"{address}/digits-vit/").body()
    (tmp_path / "index.html").write_bytes(page)
    tab.goto((tmp_path / "index.html").as_uri())
    assert "python -m http.server" in tab.inner_text("#status")
    tab.close()
