"""SmolLM2's weights in small parts, to carry them to a machine without network.

    python models/smollm2.py export FOLDER --external
    python benchmarks/carried.py pack FOLDER PARTS
    python benchmarks/carried.py unpack PARTS FOLDER

The exported file holds 650 MB of float32, widened from 98 MB of blocks in four and eight bits.
``pack`` finds the blocks of every weight in the package's GGUF file, checks that they widen to the
same numbers, and writes two parts of about 48 MB; ``unpack`` needs NumPy and onnx alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
PARTS = 2
DATA = "model.onnx.data"
#: Bytes of a block of 32 numbers, by the name of its type.
BLOCKS = {"Q4_1": 20, "Q8_0": 34, "F32": 128}


def widen(raw: NDArray[np.uint8], kind: str, shape: list[int]) -> NDArray[np.float32]:
    """The numbers of blocks: d · q + m in four bits, d · q in eight."""
    blocks = raw.reshape(-1, BLOCKS[kind]) if kind != "F32" else raw
    if kind == "F32":
        numbers = raw.view(np.float32)
    elif kind == "Q8_0":
        scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        numbers = scale * blocks[:, 2:].copy().view(np.int8).astype(np.float32)
    else:
        scale, least = blocks[:, :4].copy().view(np.float16).astype(np.float32).T[:, :, None]
        codes = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
        numbers = scale * codes.astype(np.float32) + least
    return numbers.reshape(shape)


def arrange(numbers: NDArray[Any], how: str, heads: int) -> NDArray[Any]:
    """As it is, its halves of every head interleaved otherwise (GGUF), transposed, or both."""
    if "heads" in how:
        rows, columns = numbers.shape
        numbers = numbers.reshape(heads, rows // heads // 2, 2, columns)
        numbers = numbers.swapaxes(1, 2).reshape(rows, columns)
    return np.ascontiguousarray(numbers.T if "turned" in how else numbers)


def stored(model: onnx.ModelProto) -> Iterator[tuple[str, list[int], int, int]]:
    """Name, shape, offset and length of every weight in the data file."""
    for each in model.graph.initializer:
        if each.data_location == onnx.TensorProto.EXTERNAL:
            facts = {e.key: e.value for e in each.external_data}
            shape = list(each.dims)
            length = int(facts.get("length", 4 * int(np.prod(shape))))
            yield each.name, shape, int(facts.get("offset", 0)), length


def pack(folder: Path, parts: Path) -> None:
    """Find every weight in the GGUF file, and write parts."""
    import gguf  # type: ignore[import-not-found]
    import smollm2

    parts.mkdir(parents=True, exist_ok=True)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    data = np.memmap(folder / DATA, np.uint8, "r")
    config = json.loads((folder / "config.json").read_text())
    counts = (config["num_attention_heads"], config["num_key_value_heads"])
    tensors: dict[int, list[tuple[str, str, NDArray[Any], NDArray[Any]]]] = {}
    for t in gguf.GGUFReader(smollm2.find_weights() / smollm2.WEIGHTS).tensors:
        raw, kind = np.array(t.data).view(np.uint8).ravel(), t.tensor_type.name
        shape = [int(size) for size in reversed(t.shape)]
        tensors.setdefault(int(np.prod(shape)), []).append(
            (t.name, kind, raw, widen(raw, kind, shape))
        )
    found, blocks = {}, {}
    for name, shape, offset, length in stored(model):
        wanted = data[offset : offset + length].view(np.float32).reshape(shape)
        for source, kind, raw, numbers in tensors.get(wanted.size, []):
            tried = [("", 1), ("turned", 1)] if len(shape) == 2 else [("", 1)]
            if len(shape) == 2:
                tried += [(how, n) for n in counts for how in ("heads", "heads turned")]
            match = next((x for x in tried if _equal(numbers, *x, wanted)), None)
            if match is not None:
                found[name] = [source, kind, list(numbers.shape), *match]
                blocks[source] = raw
                break
        else:
            np.save(parts / f"{len(found)}.npy", np.array(wanted))
            found[name] = [f"{len(found)}.npy", "", shape, "", 1]
    (parts / "weights.json").write_text(json.dumps(found))
    for each in folder.iterdir():
        if each.name != DATA:
            shutil.copy(each, parts)
    groups: list[dict[str, Any]] = [{} for _ in range(PARTS)]
    for name in sorted(blocks, key=lambda key: -len(blocks[key])):
        smallest = min(groups, key=lambda group: sum(map(len, group.values())))
        smallest[name] = blocks[name]
    for number, group in enumerate(groups, start=1):
        np.savez(parts / f"part{number}.npz", **group)


def _equal(numbers: NDArray[Any], how: str, heads: int, wanted: NDArray[Any]) -> bool:
    if "heads" in how and (numbers.shape[0] % (2 * heads) or heads == 1):
        return False
    made = arrange(numbers, how, heads)
    return made.shape == wanted.shape and bool(np.array_equal(made, wanted))


def unpack(parts: Path, folder: Path) -> None:
    """Write the exported file again."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in parts.iterdir():
        if each.suffix not in (".npz", ".npy") and each.name != "weights.json":
            shutil.copy(each, folder)
    found = json.loads((parts / "weights.json").read_text())
    archives = [np.load(path) for path in sorted(parts.rglob("part*.npz"))]
    blocks = {name: archive[name] for archive in archives for name in archive.files}
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    with (folder / DATA).open("wb") as stream:
        for name, _, offset, length in stored(model):
            source, kind, shape, how, heads = found[name]
            if kind:
                numbers = arrange(widen(blocks[source], kind, shape), how, heads)
            else:
                numbers = np.load(parts / source)
            assert numbers.nbytes == length, name
            stream.seek(offset)
            stream.write(numbers.tobytes())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    {"pack": pack, "unpack": unpack}[options.command](options.source, options.target)


if __name__ == "__main__":
    main()
