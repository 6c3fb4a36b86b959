"""Padding changes nothing for the tokens that are there: not the map, no sink, not the ledger.

Every model is explained on single rows without padding, and on one batch of all of them, filled up
on the right or on the left. On the left only where the model itself does not notice: positions are
fed or counted from the mask, or only their distance counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import Array, floats, ints, opened, proto, real

from palrp_onnx import Explainer
from palrp_onnx.describe import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

H, D, LONGEST, PAD = 2, 4, 9, 1
F = H * D
LENGTHS = (9, 5, 7)
#: Largest difference from the row alone, over the largest number of the array.
TOLERANCES = {"float64": 1e-9, "float32": 2e-5}

Row = Mapping[str, Array]


def rows(names: frozenset[str]) -> list[dict[str, Array]]:
    """One sample of each length, without padding; [T] each."""
    generator = np.random.default_rng(2)
    made = []
    for length in LENGTHS:
        row = {
            "input_ids": generator.integers(5, 30, size=length),
            "attention_mask": np.ones(length, np.int64),
            "position_ids": np.arange(length),
            "token_type_ids": np.arange(length) * 2 // length,
        }
        made.append({name: array for name, array in row.items() if name in names})
    return made


def padded(given: list[dict[str, Array]], side: str) -> dict[str, Array]:
    """All rows as long as the longest."""
    fill = {"input_ids": PAD}
    feeds = {}
    for name in given[0]:
        table = np.full((len(given), LONGEST), fill.get(name, 0))
        for row, sample, place in zip(table, given, places(side), strict=True):
            row[place] = sample[name]
        feeds[name] = table
    return feeds


def places(side: str) -> list[slice]:
    """The places of the tokens of each row."""
    if side == "right":
        return [slice(0, length) for length in LENGTHS]
    return [slice(LONGEST - length, LONGEST) for length in LENGTHS]


def sample_of(feeds: Mapping[str, Array]) -> Sample:
    return Sample("x", "tensors", dict(feeds), InputFacts(kind="tensors", truncated=False))


def same(ours: Any, alone: Any, tolerance: float, scale: float | None = None) -> None:
    reference = np.asarray(alone)
    scale = np.abs(reference).max() if scale is None else scale
    np.testing.assert_allclose(ours, reference, rtol=0, atol=tolerance * scale)


def compare(whole: Explanation, alone: Explanation, place: slice, tolerance: float) -> None:
    """Map, sinks and ledger of a padded row are those of the row alone; padding has nothing."""
    ledger = alone.record.ledger
    entries = [name for name in ledger if not name.startswith("residual")]
    scale = sum(abs(ledger[name]) for name in entries)
    same([whole.record.ledger[n] for n in entries], [ledger[n] for n in entries], tolerance, scale)
    arrays = {"total": np.array(whole.record.relevance.total)[None]} | whole.tensors
    expected = {"total": np.array(alone.record.relevance.total)[None]} | alone.tensors
    assert arrays.keys() == expected.keys()
    for name, reference in expected.items():
        same(arrays[name][:, place], reference, tolerance)
        beside = np.delete(arrays[name], np.r_[place], axis=1)
        assert np.abs(beside).max(initial=0) <= tolerance * np.abs(reference).max()


def check(
    path: str | Path, side: str, dtype: str = "float64", target: str = "1", **options: Any
) -> None:
    explainer = Explainer(path, dtype=dtype, **options)
    given = rows(frozenset(signature.name for signature in explainer.model.inputs))
    batch = explainer.explain(sample_of(padded(given, side)), target)
    assert all(each.record.sites for each in batch)
    for whole, row, place in zip(batch, given, places(side), strict=True):
        (alone,) = explainer.explain(sample_of({k: a[None] for k, a in row.items()}), target)
        compare(whole, alone, place, TOLERANCES[dtype])


# ------------------------------------------------------------------------------ small graphs

WEIGHTS = {
    "words": real(30, F, seed=1),
    "places": real(LONGEST + 3, F, seed=2),
    "wq": real(F, F, seed=3) / 3,
    "wk": real(F, F, seed=4) / 3,
    "wv": real(F, F, seed=5),
    "head": real(F, 3, seed=6),
    "inv": floats(1, 0.2),
    "slopes": np.array([0.5, 0.125], np.float32)[:, None, None],
    "near": real(7, H, seed=7),
    "keys": real(7, D, seed=8),
    "cut": ints(0, 0, H, D),
    "join": ints(0, 0, F),
    "i0": ints(0),
    "i1": ints(1),
    "i2": ints(2),
    "i4": ints(4),
    "i12": ints(1, 2),
    "last": ints(-1),
    "zero": ints(0).reshape(()),
    "single": ints(1).reshape(()),
    "reach": ints(3).reshape(()),
    "back": ints(-3).reshape(()),
    "one": floats(1),
    "low": floats(-1e9),
    "nought": floats(0),
}
SHARED = """x = Gather(words, input_ids)
    mf = Cast <to=1> (attention_mask)  off = Sub(one, mf)  away = Mul(off, low)
    padding = Unsqueeze(away, i12)
    size = Shape <start=1, end=2> (input_ids)  n = Squeeze(size)  count = Range(zero, n, single)
    POSITIONS
    q0 = MatMul(e, wq)  q1 = Reshape(q0, cut)  q = Transpose <perm=[0, 2, 1, 3]> (q1)
    k0 = MatMul(e, wk)  k1 = Reshape(k0, cut)  k = Transpose <perm=[0, 2, 1, 3]> (k1)
    v0 = MatMul(e, wv)  v1 = Reshape(v0, cut)  v = Transpose <perm=[0, 2, 1, 3]> (v1)
    TURN  kt = Transpose <perm=[0, 1, 3, 2]> (kr)  s = MatMul(qr, kt)  SCORES
    p = Softmax <axis=-1> (z)  c = MatMul(p, v)  t = Transpose <perm=[0, 2, 1, 3]> (c)
    a = Reshape(t, join)  h = Add(a, e)  """
POOLED = """
    keep = Unsqueeze(mf, last)  kept = Mul(h, keep)  sum = ReduceSum <keepdims=0> (kept, i1)
    there = ReduceSum <keepdims=1> (mf, i1)  mean = Div(sum, there)  y = MatMul(mean, head)
"""
TURN = """ang = Mul(col, inv)  cs = Cos(ang)  sn = Sin(ang)
    cos = Concat <axis=-1> (cs, cs)  sin = Concat <axis=-1> (sn, sn)  """ + "".join(
    f"""{x}a = Slice({x}, i0, i2, last)  {x}b = Slice({x}, i2, i4, last)  {x}n = Neg({x}b)
    {x}h = Concat <axis=-1> ({x}n, {x}a)  {x}c = Mul({x}, cos)  {x}s = Mul({x}h, sin)
    {x}r = Add({x}c, {x}s)  """
    for x in "qk"
)
COUNTED = "far = CumSum(attention_mask, single)  near0 = Mul(far, attention_mask)  "
AHEAD = "row = Unsqueeze(count, i0)  col = Unsqueeze(count, i1)  d = Sub(col, row)  "
NEAR = AHEAD + "dc = Clip(d, back, reach)  pick = Add(dc, reach)  "
BOTH = ("right", "left")


@dataclass(frozen=True)
class Model:
    """Text of one model's positions, rotation and scores; sides on which it bears padding."""

    positions: str = ""
    turn: str = "qr = Identity(q)  kr = Identity(k)"
    scores: str = "z = Add(s, padding)"
    sides: tuple[str, ...] = BOTH
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")

    def path(self, head: str = POOLED) -> Path:
        """The model as a file."""
        positions = self.positions
        if " e = " not in f" {positions}":
            positions += "  e = Identity(x)"
        body = SHARED.replace("POSITIONS", positions) + head
        body = body.replace("TURN", self.turn).replace("SCORES", self.scores)
        used = {k: a for k, a in WEIGHTS.items() if re.search(rf"\b{k}\b", body)}
        feeds = {name: np.zeros((1, LONGEST), np.int64) for name in self.inputs}
        return Path(opened(proto(body, feeds, used, free=(0, 1))).path)


FED = ("input_ids", "attention_mask", "position_ids")
MODELS = {
    "a table, counted by length": Model(
        "tab = Gather(places, count)  e = Add(x, tab)", sides=("right",)
    ),
    "a table, counted from the mask": Model(
        COUNTED + "tab = Gather(places, near0)  e = Add(x, tab)"
    ),
    "a table, positions fed": Model(
        "tab = Gather(places, position_ids)  e = Add(x, tab)", inputs=FED
    ),
    "rotations, counted by length": Model(
        turn="pf = Cast <to=1> (count)  col = Unsqueeze(pf, last)  " + TURN, sides=("right",)
    ),
    "rotations, positions fed": Model(
        turn="pf = Cast <to=1> (position_ids)  pu = Unsqueeze(pf, i1)  col = Unsqueeze(pu, last)  "
        + TURN,
        inputs=FED,
    ),
    "buckets of distances": Model(
        NEAR + "g = Gather(near, pick)  b = Transpose <perm=[2, 0, 1]> (g)",
        scores="zb = Add(s, b)  z = Add(zb, padding)",
    ),
    "buckets and the mask in one sum": Model(
        NEAR + "g = Gather(near, pick)  b = Transpose <perm=[2, 0, 1]> (g)",
        scores="m = Add(b, padding)  z = Add(s, m)",
    ),
    "slopes by distance": Model(
        AHEAD + "da = Abs(d)  df = Cast <to=1> (da)  b = Mul(df, slopes)",
        scores="zb = Sub(s, b)  z = Add(zb, padding)",
    ),
    "slopes, counted from the mask": Model(
        COUNTED + "nf = Cast <to=1> (near0)  nu = Unsqueeze(nf, i12)  b = Mul(nu, slopes)",
        scores="m = Add(b, padding)  z = Add(s, m)",
    ),
    "relative keys": Model(
        NEAR + "r = Gather(keys, pick)",
        scores="""er = Einsum <equation = "bhid,ijd->bhij"> (q, r)  zb = Add(s, er)
        z = Add(zb, padding)""",
    ),
}
UP_TO_THE_LAST = Model(
    "e = Identity(x)  rest = Sub(count, n)  rf = Cast <to=1> (rest)  b = Mul(rf, slopes)",
    scores="zb = Add(s, b)  z = Add(zb, padding)",
)
CASES = [(name, side) for name, model in MODELS.items() for side in model.sides]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("name", "side"), CASES)
def test_small_graphs(name: str, side: str, dtype: str) -> None:
    check(MODELS[name].path(), side, dtype)


def test_slopes_counted_from_the_end() -> None:
    """MPT: the softmax takes no notice of what all keys share."""
    check(UP_TO_THE_LAST.path(), "right")


def test_rotations_counted_by_length_and_padded_on_the_left() -> None:
    """Moving all tokens on moves relevance between cosines and sines, but not their sum."""
    path = MODELS["rotations, counted by length"].path()
    explainer = Explainer(path, dtype="float64", positions="signed")
    given = rows(frozenset(("input_ids", "attention_mask")))
    batch = explainer.explain(sample_of(padded(given, "left")), "1")
    for whole, row, place in zip(batch, given, places("left"), strict=True):
        (alone,) = explainer.explain(sample_of({k: a[None] for k, a in row.items()}), "1")
        same(np.array(whole.record.relevance.total)[place], alone.record.relevance.total, 1e-9)
        same(whole.tensors["content"][:, place], alone.tensors["content"], 1e-9)
        ours, theirs = (
            each.tensors["site/0/cos"] + each.tensors["site/0/sin"] for each in (whole, alone)
        )
        same(ours[:, place].sum(axis=-1), theirs.sum(axis=-1), 1e-9)


CAUSAL = Model(
    turn=MODELS["rotations, positions fed"].turn,
    scores="""row = Unsqueeze(count, i1)  col0 = Unsqueeze(count, i0)  later = Less(row, col0)
    hidden = Where(later, low, nought)  m = Add(hidden, padding)  z = Add(s, m)""",
    inputs=FED,
)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("side", BOTH)
def test_the_last_token_of_a_causal_model(side: str, dtype: str) -> None:
    """``pred`` is at the last unmasked token, on whichever side padding is."""
    check(CAUSAL.path("y = MatMul(h, head)"), side, dtype, "pred")


FEW = 3


@pytest.mark.parametrize("name", ["a table, positions fed", "rotations, positions fed"])
@pytest.mark.parametrize("side", BOTH)
def test_more_padding_than_tokens(name: str, side: str) -> None:
    """Positions that are fed are positions, however few of them count."""
    more_padding_than_tokens(name, side)


@pytest.mark.parametrize("name", ["a table, positions fed", "rotations, positions fed"])
@pytest.mark.parametrize("side", BOTH)
def test_more_padding_than_tokens_with_the_role_said(name: str, side: str) -> None:
    more_padding_than_tokens(name, side, roles={"position_ids": "position"})


def more_padding_than_tokens(name: str, side: str, **options: Any) -> None:
    path = MODELS[name].path()
    given = {name: array[:FEW] for name, array in rows(frozenset(FED))[0].items()}
    place = slice(0, FEW) if side == "right" else slice(LONGEST - FEW, LONGEST)
    feeds = {k: np.full((1, LONGEST), PAD if k == "input_ids" else 0) for k in FED}
    for each, array in given.items():
        feeds[each][0, place] = array
    (whole,) = Explainer(path, dtype="float64", **options).explain(sample_of(feeds), "1")
    alone = sample_of({k: a[None] for k, a in given.items()})
    (reference,) = Explainer(path, dtype="float64", **options).explain(alone, "1")
    compare(whole, reference, place, TOLERANCES["float64"])


# ---------------------------------------------------------------------------- exported models

SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "pad_token_id": PAD,
}
#: Class, configuration, task (none: traced as it is), sides.
EXPORTED: dict[str, tuple[str, dict[str, Any], str, tuple[str, ...]]] = {
    "bert": ("BertForSequenceClassification", SMALL, "text-classification", ("right",)),
    "mpnet": ("MPNetForSequenceClassification", SMALL, "text-classification", ("right",)),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24},
        "text-generation",
        BOTH,
    ),
    "llama": ("LlamaForCausalLM", SMALL | {"num_key_value_heads": 2}, "text-generation", BOTH),
    "t5-encoder": (
        "T5EncoderModel",
        {"vocab_size": 40, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        "",
        BOTH,
    ),
}


def traced(model: Any, path: Path) -> Path:
    """An encoder of ids and a mask, as the tracing exporter writes it."""
    import torch

    model.config.return_dict = False
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    ids = torch.full((2, LONGEST), 5)
    torch.onnx.export(
        model,
        (ids, torch.ones_like(ids)),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=names,
        dynamic_axes=axes,
    )
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a model by name, exported once; no weight has a value that hides a mistake."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("optimum.exporters.onnx")
    from palrp_onnx.export import export_model

    done: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            kind, config, task, _ = EXPORTED[name]
            torch.manual_seed(3)
            model_class = getattr(transformers, kind)
            model = model_class(model_class.config_class(**config)).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.15)
            if task:
                model.save_pretrained(folder / "torch")
                report = export_model(folder / "torch", folder / "onnx", task=task)
                done[name] = Path(report.path)
            else:
                done[name] = traced(model, folder / "model.onnx")
        return done[name]

    return export


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("name", "side"), [(name, side) for name, case in EXPORTED.items() for side in case[-1]]
)
def test_exported_models(name: str, side: str, dtype: str, exported: Callable[[str], Path]) -> None:
    target = "1" if EXPORTED[name][2] == "text-classification" else "pred"
    check(exported(name), side, dtype, target)
