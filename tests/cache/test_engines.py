"""An explanation from the cache is the same to the last byte, and costs no analysis."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from committed import FILES, MODELS, sample
from msgspec import structs

import palrp_onnx as px
from palrp_onnx import Explainer
from palrp_onnx.cache.engines import Compiled
from palrp_onnx.cache.folder import CacheFolder
from palrp_onnx.cache.models import StoredModel, open_model
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.machine import Forecast
from palrp_onnx.record import encode
from palrp_onnx.relevance.method import Method

REVIEWS = MODELS / "reviews-bert"


def same(found: list[Explanation], expected: list[Explanation]) -> None:
    """Records are the same bytes, but for times, and so are raw arrays."""
    for one, other in zip(found, expected, strict=True):
        records = [
            structs.replace(e.record, run=structs.replace(e.record.run, ms={}))
            for e in (one, other)
        ]
        assert encode(records[0]) == encode(records[1])
        assert one.tensors.keys() == other.tensors.keys()
        assert all(np.array_equal(one.tensors[n], other.tensors[n]) for n in one.tensors)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("the model is analysed")


CASES: list[tuple[str, dict[str, Any], str]] = [
    *((name, {}, "pred") for name in FILES),
    *(
        (name, {"method": "attnlrp", "positions": "abs"}, "index:1")
        for name in ("bert", "gpt2", "vit")
    ),
    ("reviews-bert", {"method": "pa-lrp-gamma:gamma=0.1"}, "index:1-index:0"),
    ("reviews-bert", {"memory": "bounded"}, "pred"),
    ("reviews-bert", {"memory": "fast", "once": True}, "logprob:pred"),
    ("reviews-bert", {"explain_input": "input_ids"}, "all"),
    ("reviews-rope", {"method": "pe-only"}, "pred"),
    ("gpt2", {"method": "cp-lrp"}, "token:2:5"),
    ("gpt2", {}, "span:2-4"),
    ("llama", {"positions": "single-sink"}, "token:-1"),
    ("digits-vit", {"method": "pa-lrp-gamma"}, "index:3"),
]


@pytest.mark.parametrize(("name", "options", "target"), CASES)
def test_records_are_the_same(
    name: str,
    options: Mapping[str, Any],
    target: str,
    folder: CacheFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = sample(name, samples=1)
    expected = Explainer(FILES[name], **options, cache=False).explain(one, target)
    assert not folder.path.exists()
    same(Explainer(FILES[name], **options).explain(one, target), expected)
    assert len(folder.held()) >= 2
    Explainer(FILES[name], **options).explain(one, target)  # some targets need another graph
    monkeypatch.setattr("palrp_onnx.model.open.Model.open", never)
    monkeypatch.setattr("palrp_onnx.prepare.plan_model", never)
    again = Explainer(FILES[name], **options)
    same(again.explain(one, target), expected)
    if options.get("memory") != "bounded":
        longer = sample(name, samples=2, tokens=13)
        monkeypatch.undo()
        same(
            again.explain(longer, target),
            Explainer(FILES[name], **options, cache=False).explain(longer, target),
        )


def test_texts_are_read_and_explained_without_the_graph(
    folder: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REVIEWS / "sample.txt").read_text()
    expected = px.load(REVIEWS, cache=False).explain(text)
    same([px.load(REVIEWS).explain(text)], [expected])
    monkeypatch.setattr("palrp_onnx.model.open.Model.open", never)
    model = px.load(REVIEWS)
    same([model.explain(text)], [expected])
    assert "input_ids" in repr(model)


def test_what_the_cache_does_not_have_is_asked_of_the_graph(folder: CacheFolder) -> None:
    px.load(REVIEWS).explain("A gripping film.")
    model = px.load(REVIEWS)
    assert model.model.graph.outputs[0].name == "logits"
    assert model.inspect().explainable
    same(
        [model.explain("dull", method="attnlrp")],
        [px.load(REVIEWS, cache=False).explain("dull", method="attnlrp")],
    )
    numpy = px.load(REVIEWS, engine="numpy")
    same([numpy.explain("dull")], [px.load(REVIEWS, engine="numpy", cache=False).explain("dull")])
    bound = px.load(REVIEWS, bind={"token_type_ids": "types"})
    assert bound.explain("dull").target.label == "NEGATIVE"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of a model in a folder of its own."""
    place = tmp_path / "own"
    shutil.copytree(REVIEWS, place)
    return place


def test_a_file_that_was_replaced_is_not_believed(own: Path, folder: CacheFolder) -> None:
    file = own / "model.onnx"
    first = px.load(own).explain("A gripping film.")
    before, data = file.stat(), bytearray(file.read_bytes())
    middle = len(data) // 2  # inside of a weight: of the same size, and of the same time
    data[middle : middle + 4096] = data[middle + 4096 : middle + 8192]
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = px.load(own).explain("A gripping film.")
    assert first.record.model.sha256 != second.record.model.sha256
    same([second], [px.load(own, cache=False).explain("A gripping film.")])


def external(own: Path) -> Path:
    """The model with its weights in a file of their own."""
    import onnx

    model = onnx.load(own / "model.onnx")
    onnx.save_model(
        model,
        own / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=1024,
    )
    return own / "weights.bin"


def test_external_weights_count(own: Path, folder: CacheFolder) -> None:
    weights = external(own)
    first = px.load(own).explain("A gripping film.")
    assert isinstance(open_model(own, folder), StoredModel)
    data = bytearray(weights.read_bytes())
    data[: 1 << 16] = bytes(1 << 16)
    weights.write_bytes(data)
    second = px.load(own).explain("A gripping film.")
    assert first.record.model.sha256 != second.record.model.sha256
    same([second], [px.load(own, cache=False).explain("A gripping film.")])
    weights.rename(own / "other.bin")
    weights.symlink_to("other.bin")
    same([px.load(own).explain("A gripping film.")], [second])
    weights.unlink()
    with pytest.raises(px.PalrpError, match="External data is missing"):
        px.load(own)


def test_a_copy_of_another_name_is_named_by_itself(own: Path, folder: CacheFolder) -> None:
    px.load(own).explain("A gripping film.")
    (own / "model.onnx").rename(own / "renamed.onnx")
    assert px.load(own).explain("A gripping film.").record.model.name == "renamed.onnx"


def entries(folder: CacheFolder) -> list[Path]:
    return sorted(folder.path.glob("*.entry"), key=lambda path: path.stat().st_size)


def test_foreign_content_under_a_right_digest_is_no_entry(own: Path, folder: CacheFolder) -> None:
    expected = px.load(own).explain("A gripping film.")

    kept: dict[str, bytes] = {}
    put = CacheFolder.put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CacheFolder, "put", lambda self, key, content: kept.update({key: content}))
        folder.clear()
        px.load(own).explain("A gripping film.")
    assert len(kept) == 2
    for key in kept:
        for content in (b"", b"\xc1", b"\x80", *(set(kept.values()) - {kept[key]})):
            for each, right in kept.items():
                put(folder, each, content if each == key else right)
            same([px.load(own).explain("A gripping film.")], [expected])


def test_a_graph_that_the_runtime_refuses_is_made_again(
    own: Path, folder: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = px.load(own).explain("A gripping film.")
    find = px.Explainer._recalled.__globals__["Recall"].find

    def broken(self: Any, feeds: Any) -> Compiled | None:
        found = find(self, feeds)
        return found and structs.replace(
            found, graph=structs.replace(found.graph, data=b"no graph")
        )

    monkeypatch.setattr("palrp_onnx.cache.engines.Recall.find", broken)
    same([px.load(own).explain("A gripping film.")], [expected])


def test_where_memory_may_not_suffice_the_exact_plan_decides(
    folder: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "A gripping film. " * 20
    px.load(REVIEWS).explain("Short.")
    free = 60_000_000
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: free)
    for each in ("Short.", text, text * 2):
        one = px.load(REVIEWS).read(each)
        expected = Explainer(REVIEWS, cache=False)
        same(Explainer(REVIEWS).explain(one), expected.explain(one))


def test_bounds_grow_with_the_square_of_inputs() -> None:
    shapes = {"ids": (2, 10), "mask": (2, 10)}
    nothing: Any = None
    compiled = Compiled(
        manifest=nothing,
        graph=nothing,
        untouched=None,
        forecast=Forecast(fast=17, bounded=12, apart=10),
        shapes=shapes,
        opset=17,
    )
    assert compiled.at_most(shapes) == compiled.forecast
    assert compiled.at_most({"ids": (2, 20), "mask": (2, 20)}).fast == 10 + 28
    assert compiled.at_most({"ids": (1, 15), "mask": (1, 15)}).fast == 10 + 28
    assert compiled.at_most({"ids": (4, 20), "mask": (4, 20)}).fast == 10 + 7 * 16


def test_own_methods_are_not_stored(folder: CacheFolder) -> None:
    own: Method = replace(px.method("attnlrp"), name="mine")
    Explainer(FILES["bert"], method=own).explain(sample("bert", samples=1))
    assert len(folder.held()) == 1  # the facts of the model


def test_arrays_that_do_not_fit_are_the_same_error(folder: CacheFolder) -> None:
    one = sample("bert", samples=1)
    Explainer(FILES["bert"]).explain(one)
    wrong = Sample("x", "tensors", {"input_ids": one.feeds["input_ids"]}, one.facts)
    messages = []
    for cache in (True, False):
        with pytest.raises(px.PalrpError) as error:
            Explainer(FILES["bert"], cache=cache).explain(wrong)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


_CHILD = """
import sys
import palrp_onnx as px
found = px.load(sys.argv[1]).explain("A gripping film.")
print(found.record.relevance.content)
"""


def test_processes_that_begin_together_agree(own: Path, folder: CacheFolder) -> None:
    command = [sys.executable, "-c", _CHILD, str(own)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(4)]
    begun[0].kill()
    said = {each.communicate()[0] for each in begun[1:]}
    expected = px.load(own, cache=False).explain("A gripping film.").record.relevance.content
    assert said == {f"{expected}\n".encode()}
    assert len(entries(folder)) == 2 and not list(folder.path.glob("*.part"))


def test_the_light_start_imports_no_graph_library(own: Path, folder: CacheFolder) -> None:
    px.load(own).explain("A gripping film.")
    child = _CHILD + (
        "heavy = {'onnx', 'onnx_ir', 'sympy', 'jinja2', 'palrp_onnx.prepare'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", child, str(own)], check=True, env=dict(os.environ))
