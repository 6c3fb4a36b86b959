from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import jsonschema
import msgspec
import numpy as np
import onnx
import pytest
from building import ints, proto, real
from click.testing import Result
from committed import MODELS
from PIL import Image

from palrp_onnx.describe import Explanation
from palrp_onnx.explainer import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import json_schema

pytestmark = pytest.mark.quick

Run = Callable[..., Result]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def check(data: bytes) -> Any:
    """Parse strictly and hold against the published schema."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} in JSON")

    parsed = json.loads(data, parse_constant=refuse)
    for record in parsed if isinstance(parsed, list) else [parsed]:
        jsonschema.validate(record, json_schema())
    return parsed


def test_stdout_holds_the_record_alone(run: Run, model: Path, text: Path) -> None:
    result = run("explain", model, "--input", text)
    assert result.exit_code == 0, result.stderr
    record = check(result.stdout_bytes)
    assert record["id"] == "review"
    assert record["units"]["text"] == ["a", "good", "film"]
    assert record["target"]["label"] in ("NEGATIVE", "POSITIVE")
    assert abs(record["ledger"]["residual_relative"]) < 1e-5
    assert "probability" in result.stderr
    assert "residual" in result.stderr


def test_quiet(run: Run, model: Path, text: Path) -> None:
    result = run("explain", model, "--input", text, "-q", "-o", "-")
    assert result.stderr == ""
    check(result.stdout_bytes)


def test_verbose_adds_the_ledger(run: Run, model: Path, text: Path) -> None:
    result = run("explain", model, "--input", text, "-v")
    assert "bias" in result.stderr
    assert "total" in result.stderr


def test_standard_input(run: Run, model: Path, text: Path) -> None:
    from_file = check(run("explain", model, "--input", text).stdout_bytes)
    result = run("explain", model, "--input", "-", stdin=text.read_bytes())
    record = check(result.stdout_bytes)
    assert record["id"] == "stdin"
    assert record["relevance"] == from_file["relevance"]


def test_folder_gets_both_formats(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "here"
    result = run("explain", model, "--input", text, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert names(out) == ["review.json", "review.png"]
    check((out / "review.json").read_bytes())
    assert Image.open(io.BytesIO((out / "review.png").read_bytes())).format == "PNG"
    assert str(out / "review.png") in result.stderr


@pytest.mark.parametrize("kind", ["json", "png"])
def test_folder_gets_one_format(
    run: Run, model: Path, text: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "out"
    run("explain", model, "--input", text, "-o", out, "--format", kind)
    assert names(out) == [f"review.{kind}"]


def test_single_files(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("map.json", "map.png"):
        result = run("explain", model, "--input", text, "-o", out / name)
        assert result.exit_code == 0, result.stderr
    assert names(out) == ["map.json", "map.png"]


def test_batch(run: Run, model: Path, batch: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tensors = tmp_path / "raw.npz"
    result = run("explain", model, "--input", batch, "-o", out, "--tensors", tensors)
    assert result.exit_code == 0, result.stderr
    assert names(out) == ["batch-0.png", "batch-1.png", "batch.json"]
    records = check((out / "batch.json").read_bytes())
    assert len(records) == 2
    with np.load(tensors) as arrays:
        assert "site/0/table" in arrays.files
        content = arrays["content"]
        position = arrays["site/0/table"]
    assert content.shape[:2] == position.shape[:2] == (2, 3)
    for row, record in enumerate(records):
        np.testing.assert_allclose(
            content[row].sum(axis=-1), record["relevance"]["content"], rtol=1e-5, atol=1e-7
        )


def test_answers_of_kserve(run: Run, model: Path, text: Path, batch: Path, tmp_path: Path) -> None:
    for source, rows in ((text, 1), (batch, 2)):
        result = run("explain", model, "--input", source, "--format", "kserve", "-q")
        assert result.exit_code == 0, result.stderr
        answer = json.loads(result.stdout_bytes)
        assert list(answer) == ["explanations"]
        assert len(check(json.dumps(answer["explanations"]).encode())) == rows
    file = tmp_path / "answer.json"
    run("explain", model, "--input", text, "--format", "kserve", "-o", file)
    assert list(json.loads(file.read_bytes())) == ["explanations"]
    folder = run("explain", model, "--input", text, "--format", "kserve", "-o", tmp_path)
    assert folder.exit_code == 2


def test_several_targets(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    """One record for each, in the order asked for, as each alone; pictures have own names."""
    alone = [
        check(run("explain", model, "--input", text, "--target", each).stdout_bytes)
        for each in ("POSITIVE", "0")
    ]
    result = run("explain", model, "--input", text, "--target", "positive,0")
    found = check(result.stdout_bytes)
    assert [each["id"] for each in found] == ["review-0", "review-1"]
    assert [each["target"] for each in found] == [each["target"] for each in alone]
    assert [each["relevance"] for each in found] == [each["relevance"] for each in alone]
    assert "review-1: logits[0: NEGATIVE]" in result.stderr
    every = check(run("explain", model, "--input", text, "--target", "all").stdout_bytes)
    assert [each["target"]["index"] for each in every] == [0, 1]
    out, tensors = tmp_path / "out", tmp_path / "raw.npz"
    options = ["--format", "json,png,html", "--tensors", tensors]
    result = run("explain", model, "--input", text, "--target", "all", "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    assert names(out) == ["review-0.png", "review-1.png", "review.html", "review.json"]
    assert len(check((out / "review.json").read_bytes())) == 2
    with np.load(tensors) as arrays:
        sums = arrays["content"].sum(axis=-1)
    for row, each in zip(sums, every, strict=True):
        np.testing.assert_allclose(row, each["relevance"]["content"], rtol=1e-4, atol=1e-7)


def test_several_targets_of_several_rows(run: Run, model: Path, batch: Path) -> None:
    """All targets of a row, then those of the next."""
    result = run("explain", model, "--input", batch, "--target", "1,index:0,POSITIVE-NEGATIVE")
    found = check(result.stdout_bytes)
    assert [each["id"] for each in found] == [f"batch-{k}" for k in range(6)]
    assert [each["target"]["index"] for each in found] == [1, 0, 1] * 2
    assert [each["units"]["text"][1] for each in found] == ["2"] * 3 + ["3"] * 3
    checked = ["--target", "all", "--fail-on", "probability<0.5"]
    assert run("explain", model, "--input", batch, *checked).exit_code == 5


@pytest.mark.parametrize("target", ["0,POSITIVE", "all"])
def test_several_targets_do_not_fit_one_picture(
    run: Run, model: Path, text: Path, tmp_path: Path, target: str
) -> None:
    result = run("explain", model, "--input", text, "--target", target, "-o", tmp_path / "map.png")
    assert result.exit_code == 2
    assert "-o DIR" in result.stderr


def test_a_product_with_a_vector(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    vector, out = tmp_path / "query.npy", tmp_path / "out"
    np.save(vector, np.array([1.0, -1.0]))
    contrast = check(run("explain", model, "--input", text, "--target", "0-1").stdout_bytes)
    options = ["-o", out, "--format", "json,png,html"]
    result = run("explain", model, "--input", text, "--target", f"dot:{vector}", *options)
    assert result.exit_code == 0, result.stderr
    assert "review: logits·query.npy = " in result.stderr
    assert "warning" not in result.stderr
    record = check((out / "review.json").read_bytes())
    np.testing.assert_allclose(
        record["relevance"]["total"], contrast["relevance"]["total"], rtol=1e-4
    )
    keys = ["output", "kind", "value", "vector", "vector_sha256", "head", "head_reason"]
    assert list(record["target"]) == keys
    assert "product with query.npy" in (out / "review.html").read_text()
    refused = run(
        "explain", model, "--input", text, "--target", f"dot:{vector}", "--tensors", vector
    )
    assert refused.exit_code == 2
    assert "would replace a file that was read" in refused.stderr
    cosine = run("explain", model, "--input", text, "--target", f"cos:{vector}")
    assert "logits cosine with query.npy = " in cosine.stderr
    assert -1 <= check(cosine.stdout_bytes)["target"]["value"] <= 1


def test_one_row_is_one_object(run: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "row.npz"
    np.savez(source, input_ids=np.array([[1, 2]]))
    assert check(run("explain", model, "--input", source).stdout_bytes)["id"] == "row"


def test_options_reach_the_explainer(run: Run, model: Path, text: Path) -> None:
    def record(*options: str) -> Any:
        return check(run("explain", model, "--input", text, *options).stdout_bytes)

    contrast = record("--target", "POSITIVE-NEGATIVE", "--output", "logits")
    assert contrast["target"]["kind"] == "contrast"
    assert (contrast["target"]["index"], contrast["target"]["against"]) == (1, 0)
    other = record("--method", "attnlrp", "--positions", "signed", "--dtype", "float64")
    assert other["run"]["method"] == "attnlrp"
    assert other["run"]["params"]["positions"] == "signed"
    assert other["run"]["dtype"] == "float64"
    assert other["relevance"]["score"] == other["relevance"]["content"]


def test_tokenizer_elsewhere(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(model.read_bytes())
    assert run("explain", alone, "--input", text).exit_code == 3
    tokenizer = model.parent / "tokenizer.json"
    assert run("explain", alone, "--input", text, "--tokenizer", tokenizer).exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--target", "9"], 4, "error[target]"),
        (["--target", "no such label"], 4, "POSITIVE"),
        (["--target", "POSITIVE,nobody"], 4, "nobody"),
        (["--target", "0,1"], 4, "index:0,index:1"),
        (["--target", "dot:nowhere.npy"], 3, "nowhere.npy"),
        (["--output", "nothing"], 4, "logits"),
        (["--explain-input", "nothing"], 2, "input_ids"),
        (["--tokenizer", "missing.json"], 3, "missing.json"),
        (["--pair", "missing.txt"], 3, "missing.txt"),
        (["--dtype", "float64", "--device", "cuda"], 2, "float64"),
        (["--method", "magic"], 2, "magic"),
        (["--device", "cuda:x"], 2, "cuda:N"),
        (["--format", "json,gif"], 2, "gif"),
        (["--format", "png"], 2, "stdout can only have the format json"),
        (["-o", "{out}/map.jpg"], 2, ".png"),
        (["-o", ""], 2, "-o is empty"),
        (["--text", "a film"], 2, "only once"),
        (["-o", "{out}/map.png", "--format", "json,png"], 2, "-o DIR"),
        (["--fail-on", "residual=1"], 2, "residual>1e-3"),
        (["--fail-on", "charm>1"], 2, "position_share"),
        (["--fail-on", "residual>nan"], 2, "finite"),
    ],
)
def test_errors_come_before_any_file(
    run: Run,
    model: Path,
    text: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    said: str,
) -> None:
    out = tmp_path / "out"
    options = [option.format(out=out) for option in options]
    if "-o" not in options and "--format" not in options:
        options += ["-o", str(out), "--tensors", str(tmp_path / "raw.npz")]
    result = run("explain", model, "--input", text, *options)
    assert result.exit_code == code, result.stderr
    assert said in result.stderr
    assert result.stdout == ""
    assert names(tmp_path) == ["review.txt"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "empty"),
        ("latin.txt", "café".encode("latin-1"), "latin"),
        ("what.pdf", b"%PDF", "what.pdf"),
        ("no.png", b"not a picture", "input_ids"),
        ("no.npz", b"not an archive", "no.npz"),
        ("missing.txt", None, "missing.txt"),
    ],
)
def test_bad_input(
    run: Run, model: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run("explain", model, "--input", tmp_path / name, "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert result.stderr.startswith("error[input]: ")
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_input(run: Run, model: Path, text: Path) -> None:
    result = run("explain", model, "--input", f"input_id={text}")
    assert result.exit_code == 2
    assert "no input 'input_id'" in result.stderr and "Inputs: input_ids." in result.stderr


def test_a_label_of_the_name_of_what_is_explained_without_a_target(
    run: Run, model: Path, text: Path, tmp_path: Path
) -> None:
    copytree(model.parent, tmp_path / "credit")
    labels = {"id2label": {"0": "default", "1": "repaid"}}
    (tmp_path / "credit/config.json").write_text(json.dumps(labels))
    given = "explain", tmp_path / "credit/model.onnx", "--input", text, "-q"
    assert run(*given).exit_code == 0
    result = run(*given, "--target", "default")
    assert result.exit_code == 4 and "label:default or index:default" in result.stderr


def test_bad_model(run: Run, text: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    assert run("explain", broken, "--input", text).exit_code == 4
    assert run("explain", tmp_path / "missing.onnx", "--input", text).exit_code == 3


def test_batch_does_not_fit_one_picture(run: Run, model: Path, batch: Path, tmp_path: Path) -> None:
    result = run("explain", model, "--input", batch, "-o", tmp_path / "map.png")
    assert result.exit_code == 2
    assert "2 rows" in result.stderr
    assert names(tmp_path) == ["batch.npz"]


def test_sources_are_never_replaced(
    run: Run, model: Path, text: Path, batch: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.npz").symlink_to(batch)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_bytes((model.parent / "tokenizer.json").read_bytes())
    before = {path: path.read_bytes() for path in (batch, tokenizer)}
    result = run("explain", model, "--input", batch, "--tensors", tmp_path / "link.npz")
    assert result.exit_code == 2
    result = run("explain", model, "--input", text, "--tokenizer", tokenizer, "-o", tokenizer)
    assert result.exit_code == 2
    same = tmp_path / "same.json"
    assert run("explain", model, "--input", text, "-o", same, "--tensors", same).exit_code == 2
    assert before == {path: path.read_bytes() for path in before}
    assert not same.exists()


@pytest.mark.parametrize(
    ("check", "code"),
    [
        ("residual>1e-3", 0),
        ("residual >= 0", 5),
        ("position_share>0.999", 0),
        ("position_share<=1", 5),
        ("probability<0.01", 0),
        ("probability>0.01", 5),
    ],
)
def test_fail_on(run: Run, model: Path, text: Path, tmp_path: Path, check: str, code: int) -> None:
    out = tmp_path / "map.json"
    result = run("explain", model, "--input", text, "-o", out, "--fail-on", check)
    assert result.exit_code == code, result.stderr
    assert out.is_file()
    assert ("error[check]" in result.stderr) == (code == 5)


def test_every_check_and_row_counts(run: Run, model: Path, batch: Path) -> None:
    checks = ["--fail-on", "residual>1", "--fail-on", "probability<=1"]
    result = run("explain", model, "--input", batch, *checks)
    assert result.exit_code == 5
    assert "probability<=1" in result.stderr
    assert "1 more failed" in result.stderr
    assert len(check(result.stdout_bytes)) == 2


def test_an_unknown_number_does_not_pass(run: Run, model: Path, text: Path) -> None:
    options = ["--target", "1", "--fail-on", "probability<0"]
    assert run("explain", model, "--input", text, *options).exit_code == 0
    options = ["--target", "0,", "--fail-on", "probability<0"]
    assert run("explain", model, "--input", text, *options).exit_code == 4


def tampered(monkeypatch: pytest.MonkeyPatch, change: Callable[[Explanation], Explanation]) -> None:
    original = Explainer.explain

    def explain(self: Explainer, sample: Sample, *rest: Any, **named: Any) -> list[Explanation]:
        return [change(each) for each in original(self, sample, *rest, **named)]

    monkeypatch.setattr(Explainer, "explain", explain)


def test_missing_probability_fails_its_check(
    run: Run, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(each: Explanation) -> Explanation:
        target = msgspec.structs.replace(each.record.target, probability=None)
        return Explanation(msgspec.structs.replace(each.record, target=target), each.tensors)

    tampered(monkeypatch, forget)
    result = run("explain", model, "--input", text, "--fail-on", "probability<0")
    assert result.exit_code == 5
    assert "not known" in result.stderr


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_that_is_not_finite_is_written(
    run: Run,
    model: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    def spoil(each: Explanation) -> Explanation:
        ledger = {**each.record.ledger, "other": value}
        return Explanation(msgspec.structs.replace(each.record, ledger=ledger), each.tensors)

    tampered(monkeypatch, spoil)
    result = run("explain", model, "--input", text, "-o", tmp_path / "out")
    assert result.exit_code == 4
    assert "NaN or infinity" in result.stderr
    assert names(tmp_path) == ["review.txt"]


def test_hostile_text_does_not_steer_the_terminal(run: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "x\x1b[31m.txt"
    source.write_text("good \x1b]0;title\x07 \u202e film", encoding="utf-8")
    result = run("explain", model, "--input", source)
    assert result.exit_code == 0, result.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(result.stderr)


def test_a_text_that_is_too_long_is_named_as_such(run: Run, model: Path, tmp_path: Path) -> None:
    """No file says how many tokens the model takes."""
    (tmp_path / "long.txt").write_text("film " * 40)
    result = run("explain", model, "--input", tmp_path / "long.txt")
    assert result.exit_code == 3
    assert "on the 40 tokens of this text" in result.stderr
    assert "model_max_length" in result.stderr


# --- inputs with names of their own ---------------------------------------------------------------


def renamed(folder: Path, names: dict[str, str]) -> Path:
    """The film reviews model with other names of its inputs, and a tokenizer one folder up."""
    source = MODELS / "reviews-bert"
    proto = onnx.load(source / "model.onnx")
    for value in proto.graph.input:
        value.name = names[value.name]
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    (folder / "onnx").mkdir()
    onnx.save(proto, folder / "onnx" / "model.onnx")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder / "onnx" / "model.onnx"


USUAL = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.parametrize(
    "names", [("ids", "mask", "types"), ("input.1", "input.2", "input.3"), ("a:0", "b:0", "c:0")]
)
def test_inputs_are_fed_by_what_they_are(
    run: Run, tmp_path: Path, names: tuple[str, ...], text: Path
) -> None:
    path = renamed(tmp_path, dict(zip(USUAL, names, strict=True)))
    own = run("explain", path, "--input", text, "-q")
    usual = run("explain", MODELS / "reviews-bert" / "model.onnx", "--input", text, "-q")
    assert own.exit_code == usual.exit_code == 0, own.stderr
    records = [json.loads(each.stdout) for each in (own, usual)]
    for record in records:
        del record["run"], record["model"]
    assert records[0]["relevance"] == records[1]["relevance"]
    assert records[0]["target"] == records[1]["target"]


def test_names_that_contradict_need_a_binding(run: Run, tmp_path: Path, text: Path) -> None:
    swapped = ("attention_mask", "input_ids", "token_type_ids")
    path = renamed(tmp_path, dict(zip(USUAL, swapped, strict=True)))
    result = run("explain", path, "--input", text, "-q")
    assert result.exit_code == 3
    assert "--bind" in result.stderr
    bound = ("--bind", "attention_mask=ids", "--bind", "input_ids=mask")
    assert run("explain", path, "--input", text, "-q", *bound).exit_code == 0
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"text": "a good film"}\n{"text": "a bad and long film"}\n')
    assert run("batch", path, "--input", lines, "-o", tmp_path / "a", "-q").exit_code == 6
    result = run("batch", path, "--input", lines, "-o", tmp_path / "b", "-q", *bound)
    assert result.exit_code == 0
    result = run("evaluate", "conservation", path, "--input", text, "-q", *bound)
    assert result.exit_code == 0
    assert run("explain", path, "--input", text, "--bind", "x=ids").exit_code == 2
    assert run("explain", path, "--input", text, "--bind", "ids").exit_code == 2


def test_an_input_without_a_batch_is_one_picture(run: Run, tmp_path: Path) -> None:
    """Its first axis runs along tokens, which are no records."""
    ids = ints(7, 20, 3, 3, 21)
    weights = {"words": real(30, 6, seed=1), "head": real(6, 4, seed=2), "zero": ints(0)}
    body = """e = Gather(words, ids)  k = Transpose <perm=[1, 0]> (e)  s = MatMul(e, k)
        p = Softmax <axis=-1> (s)  c = MatMul(p, e)  h = ReduceSum <keepdims=0> (c, zero)
        y = MatMul(h, head)"""
    onnx.save(proto(body, {"ids": ids}, weights), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", ids=ids)
    place = tmp_path / "map.png"
    model, source = tmp_path / "model.onnx", tmp_path / "x.npz"
    result = run("explain", model, "--input", source, "--target", "1", "-o", place)
    assert result.exit_code == 0, result.stderr
    assert Image.open(place).format == "PNG"
