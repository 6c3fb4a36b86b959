"""Every kind of page, made of records of the committed models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
from committed import MODELS, opened

from palrp_onnx.evaluate.agreement import survey
from palrp_onnx.evaluate.agreement_page import render_agreement
from palrp_onnx.explainer import Explainer
from palrp_onnx.inputs import open_sample, read_labels
from palrp_onnx.matrix import matrix_of
from palrp_onnx.record import PARTS, Attribution, Map, Relevance, Units
from palrp_onnx.render.beside import render_records
from palrp_onnx.render.grid import render_matrix_html
from palrp_onnx.render.html import render_html
from palrp_onnx.render.listing import render_run
from palrp_onnx.render.run_lines import FailedRecord, ListedRecord


@cache
def explained(name: str, target: str = "pred") -> tuple[Attribution, Any]:
    """The record of a committed model's sample, and the sample."""
    model, folder = opened(name), MODELS / name
    source = next(folder.glob("sample.*"))
    path = folder / "model.onnx"
    sample = open_sample(source, model_path=path, graph_inputs=model.inputs, tokenizer=None)
    (found,) = Explainer(model).explain(sample, target, read_labels(path))
    return found.record, sample


def replaced(record: Attribution, units: Units, count: int) -> Attribution:
    """The first units of a record, as units of another kind."""
    cut = {name: getattr(record.relevance, name)[:count] for name in PARTS}
    sites = [
        msgspec.structs.replace(site, relevance=site.relevance[:count]) for site in record.sites
    ]
    relevance = Relevance(**cut)
    return msgspec.structs.replace(record, units=units, relevance=relevance, sites=sites)


def text() -> bytes:
    return render_html(explained("reviews-rope")[0])


def image() -> bytes:
    record, sample = explained("digits-vit")
    picture, box = sample.picture_of(record.maps[0].input)
    return render_html(record, image=picture, box=box)


def patches() -> bytes:
    return render_html(explained("digits-vit")[0])


def film() -> bytes:
    record = explained("reviews-rope")[0]
    return render_html(replaced(record, Units(kind="patch", grid=(20, 4), pictures=5), 80))


def table() -> bytes:
    record = explained("reviews-rope")[0]
    names = [f"a column with a name of some length {k}" for k in range(50)]
    return render_html(replaced(record, Units(kind="column", text=names), 50))


def series() -> bytes:
    return render_html(replaced(explained("reviews-rope")[0], Units(kind="step", step=0.02), 80))


def beside() -> bytes:
    records = [explained("reviews-rope", target)[0] for target in ("0", "1")]
    return render_records("two targets", records, [{}, {}])


def maps() -> bytes:
    record, other = explained("reviews-rope")[0], explained("digits-vit")[0]
    second = Map(input="pixels", units=other.units, relevance=other.relevance, sites=other.sites)
    return render_html(msgspec.structs.replace(record, others=[second]))


def matrix() -> bytes:
    record = explained("reviews-rope")[0]
    return render_matrix_html(matrix_of("text", [record] * 3, None))


def entries() -> Sequence[ListedRecord]:
    found = []
    for number in range(120):
        record = explained("reviews-rope" if number % 3 else "reviews-bert")[0]
        if number % 9 == 4:
            record = explained("digits-vit")[0]
        meta = {"year": 1990 + number % 7, "of": "a" if number % 2 else "b"}
        named = msgspec.structs.replace(record, id=f"r{number}")
        found.append(ListedRecord(f"run.jsonl:{number}", named, source="ab"[number % 2], meta=meta))
    return [*found, ListedRecord("run.jsonl:121", FailedRecord("bad", "there is no text"))]


def run() -> bytes:
    return render_run("a run", entries()).html


def comparison() -> bytes:
    pairs = [(explained("reviews-rope")[0], explained("reviews-rope", "0")[0])] * 3
    return render_agreement("two runs", survey(_Given(pairs)))  # type: ignore[arg-type]


class _Given(list[tuple[Attribution, Attribution]]):
    """Pairs that are there already."""

    only_a: Sequence[str] = ()
    only_b: Sequence[str] = ()
    failed_a: Sequence[str] = ()
    failed_b: Sequence[str] = ()


PAGES: dict[str, Callable[[], bytes]] = {
    each.__name__: each
    for each in (text, image, patches, film, table, series, beside, maps, matrix, run, comparison)
}
