"""Hostile texts, tokenizers, images and archives beside a healthy model."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxed import Box, hold
from budget import budget
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image
from specimens import TOKENIZER, serialised, write_text_model

Change = Callable[[dict[str, Any]], object]


def explain(box: Box, folder: Path, name: str = "in.txt") -> int | None:
    return hold(box, "cli", "explain", folder / "model.onnx", "--input", folder / name).exit


def test_a_healthy_text(box: Box, tmp_path: Path) -> None:
    assert explain(box, write_text_model(tmp_path)) == 0


TEXTS = {
    "not UTF-8": (b"a \xff\xfe good", 3),
    "NUL": (b"a\0good", 3),
    "blank": (b" \n\t", 3),
    "control characters": (b"a \x1b[31mgood\x07 \xc2\x9b2Jfilm", 0),
    "bidirectional overrides": ("a \u202egood\u2066 film".encode(), 0),
    "half an emoji": ("a \ud83d good".encode("utf-8", "surrogatepass"), 3),
    "a line of 100 MB": (b"a" * (100 << 20), 3),
    "a million words": (b"a " * (3 << 19), 3),
}


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_texts(box: Box, tmp_path: Path, name: str) -> None:
    data, code = TEXTS[name]
    (write_text_model(tmp_path) / "in.txt").write_bytes(data)
    arguments = ["explain", tmp_path / "model.onnx", "--input", tmp_path / "in.txt"]
    outcome = hold(box, "cli", *arguments, "-o", tmp_path / "out.json")
    assert outcome.exit == code
    # What is told to a person. The record is data, and holds the text as it is.
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2066"} & set(outcome.text)
    assert (tmp_path / "out.json").exists() == (code == 0)


@budget(60)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example("a\u0301\u200d\ufeff".encode())
@example(b"\xef\xbb\xbf")
def test_any_text(box: Box, folder: Path, data: bytes) -> None:
    (write_text_model(folder) / "in.txt").write_bytes(data)
    explain(box, folder)


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}


def replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def template(tokens: list[str], known: dict[str, Any]) -> dict[str, Any]:
    parts = [{"SpecialToken": {"id": t, "type_id": 0}} for t in tokens]
    single = [*parts, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": known}


UNEVEN = {"[CLS]": {"id": "[CLS]", "ids": [0] * 9, "tokens": ["x"]}}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "a search that never ends": {"pre_tokenizer": split("(a+)+$")},
    "a pattern that is none": {"pre_tokenizer": split("(((")},
    "a pattern of 20000 groups": {"pre_tokenizer": split("(" * 20000 + ")" * 20000)},
    "a normaliser that writes 10^18": {
        "normalizer": {"type": "Sequence", "normalizers": [replace("a", "a" * 1000)] * 6}
    },
    "a table that is no table": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    },
    "a table that lies": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "////fwAA"}
    },
    "a template without its token": {"post_processor": template(["[CLS]"], {})},
    "a template with more ids than tokens": {"post_processor": template(["[CLS]"], UNEVEN)},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "no room at all": {
        "truncation": {
            "direction": "Right",
            "max_length": 0,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    },
    "an id out of the table": {
        "model": {**TOKENIZER["model"], "vocab": {"[UNK]": 0, "a": 2**32 - 1}}
    },
    "an id of 41 bits": {"model": {**TOKENIZER["model"], "vocab": {"[UNK]": 0, "a": 2**40}}},
    "merges of nothing": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
    "an empty model": {"model": {"type": "Unigram", "unk_id": None, "vocab": []}},
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_hostile_tokenizers(box: Box, tmp_path: Path, name: str) -> None:
    write_text_model(tmp_path, {**TOKENIZER, **TOKENIZERS[name]})
    (tmp_path / "in.txt").write_bytes(b"a" * 40 + b"! a good")
    assert explain(box, tmp_path) == 3


@pytest.mark.parametrize(
    "data", [b"", b"[" * 10**6, b'{"model":' * 10**5, b"\xff", b"null", b" " * (65 << 20)]
)
def test_tokenizers_that_are_no_json(box: Box, tmp_path: Path, data: bytes) -> None:
    assert explain(box, write_text_model(tmp_path, data)) == 3


@budget(120)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_tokenizers(box: Box, folder: Path, at: int, byte: int, cut: bool) -> None:
    extra = {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, replace("x", "yy")]},
        "post_processor": template(["[UNK]"], {"[UNK]": {**UNEVEN["[CLS]"], "ids": [0]}}),
        "decoder": {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        "truncation": None,
        "padding": None,
    }
    data = bytearray(json.dumps({**TOKENIZER, **extra}).encode())
    if cut:
        del data[at % len(data) :]
    else:
        data[at % len(data)] = byte
    explain(box, write_text_model(folder, bytes(data)))


CONFIGS = {
    "nested": b'{"a":' * 10**5,
    "a list": b"[]",
    "not UTF-8": b'{"a":"\xff"}',
    "no number": b'{"id2label": {"%s": "a"}}' % (b"9" * 6000),
    "half an emoji": b'{"id2label": {"0": "\\ud800"}}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_configurations(box: Box, tmp_path: Path, name: str) -> None:
    (write_text_model(tmp_path) / "config.json").write_bytes(CONFIGS[name])
    assert explain(box, tmp_path) == 3


def test_labels_do_not_steer_the_terminal(box: Box, tmp_path: Path) -> None:
    config = {"id2label": {"0": "\x1b[2J\x07", "1": "\x1b]0;owned\x07"}}
    (write_text_model(tmp_path) / "config.json").write_text(json.dumps(config))
    arguments = ["explain", tmp_path / "model.onnx", "--input", tmp_path / "in.txt"]
    outcome = hold(box, "cli", *arguments)
    assert outcome.exit == 0 and not {"\x1b", "\x07"} & set(outcome.text)


def write_image_model(folder: Path, **config: Any) -> Path:
    """Mean of one channel's pixels: enough for what comes before the model."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])]
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"])]
    nodes.append(helper.make_node("Flatten", ["p"], ["y"]))
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    settings = {"image_processor_type": "ViTImageProcessor", "size": 16, **config}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    Image.effect_noise((20, 20), 50).convert("RGB").save(folder / "in.png")
    return folder


def open_image(box: Box, folder: Path, name: str = "in.png") -> int | None:
    """Whatever the model makes of it; the picture is read before."""
    return hold(box, "cli", "explain", folder / "model.onnx", "--input", folder / name).exit


PREPROCESSING: dict[str, dict[str, Any]] = {
    "longer than memory": {"size": {"height": (1 << 20) - 1, "width": 1 << 10}},
    "negative": {"size": -1},
    "a huge mean": {"image_mean": [1e308] * 3},
    "a mean of 400 digits": {"image_mean": 10**400},
    "a vanishing deviation": {"image_std": [1e-320] * 3},
    "a factor of 400 digits": {"rescale_factor": 10**400},
    "no filter": {"resample": {}},
    "no processor": {"image_processor_type": 5},
    "crop to nothing": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 9},
        "crop_pct": 1e300,
    },
    "crop from everything": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 9},
        "crop_pct": 1e-300,
    },
}


@pytest.mark.parametrize("name", PREPROCESSING)
def test_hostile_preprocessing(box: Box, tmp_path: Path, name: str) -> None:
    write_image_model(tmp_path, **PREPROCESSING[name])
    assert open_image(box, tmp_path) == 3


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that says how large it is, and holds a megabyte of black."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    return b"".join([b"\x89PNG\r\n\x1a\n", head, *chunks, body, chunk(b"IEND", b"")])


BLOWN_UP = b"a\0\0" + zlib.compress(bytes(200 << 20), 9)
IMAGES = {
    "a terapixel": lambda: png(1 << 20, 1 << 20),
    "an exapixel": lambda: png(1 << 30, 1 << 30),
    "no pixel": lambda: png(0, 0),
    "truncated": lambda: png(9000, 9000),
    "a profile of 200 MB": lambda: png(16, 16, chunk(b"iCCP", BLOWN_UP)),
    "a comment of 200 MB": lambda: png(16, 16, chunk(b"zTXt", BLOWN_UP)),
    "empty": lambda: b"",
    "another format": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n",
}


@pytest.mark.parametrize("name", IMAGES)
def test_hostile_images(box: Box, tmp_path: Path, name: str) -> None:
    (write_image_model(tmp_path) / "in.png").write_bytes(IMAGES[name]())
    assert open_image(box, tmp_path) == 3


@budget(120)
@given(
    at=st.integers(0, 10**6),
    bit=st.integers(0, 7),
    cut=st.booleans(),
    suffix=st.sampled_from(["png", "gif", "bmp", "jpg", "webp"]),
)
def test_damaged_images(box: Box, folder: Path, at: int, bit: int, cut: bool, suffix: str) -> None:
    path = write_image_model(folder) / f"in.{suffix}"
    Image.effect_noise((20, 20), 50).convert("RGB").save(path)
    data = bytearray(path.read_bytes())
    if cut:
        del data[at % len(data) :]
    else:
        data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)
    open_image(box, folder, path.name)


def npy(shape: str, descr: str = "'<i8'", data: bytes = b"") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return stream.getvalue()


GOOD = npy("(1, 3)", data=np.array([1, 2, 3]).tobytes())
LIE = struct.pack("<I", 2**31 - 1)
ARCHIVES = {
    "says more than it holds": lambda: archive(ids=GOOD).replace(struct.pack("<I", len(GOOD)), LIE),
    "unpacks to more than 2 GiB": lambda: bomb((2 << 30) + (1 << 24)),
    "pickled": lambda: archive(ids=npy("(1,)", "'|O'", b"\x80\x04.")),
    "records": lambda: archive(ids=npy("(1, 3)", "[('a', '<i8')]")),
    "a shape of 2^62": lambda: archive(ids=npy("(1, 4611686018427387904)")),
    "a negative shape": lambda: archive(ids=npy("(-1, 3)")),
    "a nested shape": lambda: archive(ids=npy("(" * 5000 + ")" * 5000)),
    "ids out of the table": lambda: archive(
        ids=npy("(1, 2)", data=np.array([-(2**63), 2**62]).tobytes())
    ),
    "nothing": lambda: archive(),
    "another name": lambda: archive(**{"../../ids": GOOD}),
}


def bomb(size: int) -> bytes:
    """An archive that says, and truly holds, ``size`` bytes of zeros in few."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("ids.npy", "w", force_zip64=True) as member,
    ):
        head = npy(f"(1, {size // 8})")
        member.write(head)
        block = bytes(1 << 24)
        for _ in range(size // len(block)):
            member.write(block)
    return stream.getvalue()


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives(box: Box, tmp_path: Path, name: str) -> None:
    (write_text_model(tmp_path) / "in.npz").write_bytes(ARCHIVES[name]())
    assert explain(box, tmp_path, "in.npz") == 3


@budget(60)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_damaged_archives(box: Box, folder: Path, at: int, bit: int, cut: bool) -> None:
    data = bytearray(archive(ids=GOOD))
    if cut:
        del data[at % len(data) :]
    else:
        data[at % len(data)] ^= 1 << bit
    (write_text_model(folder) / "in.npz").write_bytes(data)
    explain(box, folder, "in.npz")


def with_output(box: Box, folder: Path, place: Path) -> int | None:
    write_text_model(folder)
    arguments = ["explain", folder / "model.onnx", "--input", folder / "in.txt", "-o", place]
    return hold(box, "cli", *arguments, "--format", "json").exit


def test_outputs_that_cannot_be(box: Box, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("/dev/full")
    assert with_output(box, tmp_path, link) == 7
    assert link.is_symlink()
    assert with_output(box, tmp_path, Path("/proc/none/out.json")) == 3
    assert with_output(box, tmp_path, tmp_path / ("x" * 300 + ".json")) == 3


def test_a_link_to_the_model_is_not_written_through(box: Box, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "model.onnx")
    assert with_output(box, tmp_path, link) == 2
    assert (tmp_path / "model.onnx").read_bytes() == serialised("attention")


def test_a_link_to_itself(box: Box, tmp_path: Path) -> None:
    link = tmp_path / "loop.json"
    link.symlink_to(link)
    with_output(box, tmp_path, link)


def test_a_full_disk_leaves_what_was_there(box: Box, tmp_path: Path) -> None:
    """``--tensors`` fails behind a record that was already staged: neither appears."""
    write_text_model(tmp_path)
    record = tmp_path / "out" / "in.json"
    record.parent.mkdir()
    record.write_text("before")
    arguments = ["explain", tmp_path / "model.onnx", "--input", tmp_path / "in.txt"]
    more = ["-o", record.parent, "--format", "json", "--tensors", "/dev/full"]
    assert hold(box, "cli", *arguments, *more).exit == 7
    assert record.read_text() == "before"
    assert [each.name for each in record.parent.iterdir()] == ["in.json"]


def test_standard_output_that_is_full(tmp_path: Path) -> None:
    write_text_model(tmp_path)
    program = "from palrp_onnx.cli.main import main; main()"
    command = [sys.executable, "-c", program, "inspect", tmp_path / "model.onnx"]
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert run.returncode == 7 and b"Traceback" not in run.stderr
