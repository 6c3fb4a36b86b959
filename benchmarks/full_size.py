"""Models of full size without their weights, which are made again from a seed.

    python benchmarks/full_size.py FOLDER [--names bert tinyllama …]

Exports models of the usual sizes with random weights and writes their graphs alone: a few megabytes
that are easily carried to another machine. :func:`fill` makes the weights there, with PyTorch and
transformers, from the same configuration and a seed. Writing needs the extra ``export``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from engines import LLAMA
from onnx.external_data_helper import load_external_data_for_model, set_external_data
from onnxruntime.transformers.float16 import convert_float_to_float16

TINYLLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 16384,
}
LONG = {"max_position_embeddings": 16384}
#: name → (family, head, configuration, task, whether in half precision).
MODELS: dict[str, tuple[str, str, dict[str, Any], str, bool]] = {
    "bert": ("Bert", "ForSequenceClassification", LONG, "text-classification", False),
    "bert-half": ("Bert", "ForSequenceClassification", LONG, "text-classification", True),
    "llama": ("Llama", "ForSequenceClassification", LLAMA | LONG, "text-classification", False),
    "llama-half": ("Llama", "ForSequenceClassification", LLAMA | LONG, "text-classification", True),
    "tinyllama-half": ("Llama", "ForCausalLM", TINYLLAMA, "text-generation", True),
}
#: Tensors of fewer bytes stay in the graph.
_SMALL = 1 << 13
_DATA = "weights.bin"


def build(name: str, device: str = "cpu") -> Any:
    """The network with random weights: the same on every machine with the same device."""
    family, head, arguments, _, _ = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**arguments)
    torch.manual_seed(0)
    with torch.device(device):
        return getattr(transformers, f"{family}{head}")(config).eval()


def write_graph(name: str, folder: Path) -> None:
    """Export a model and keep the graph and the names of its weights."""
    from optimum.exporters.onnx import main_export

    *_, task, half = MODELS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source, exported = Path(scratch, "source"), Path(scratch, "exported")
        network = build(name)
        large = sum(p.numel() for p in network.parameters()) > 5e8
        network = network.half() if half and large else network
        network.save_pretrained(source)
        main_export(
            str(source),
            output=exported,
            task=task,
            dtype="fp16" if half and large else "fp32",
            do_validation=False,
            no_post_process=True,
        )
        model = onnx.load(exported / "model.onnx", load_external_data=False)
        load_external_data_for_model(model, str(exported))
    if half and not large:
        model = convert_float_to_float16(model, keep_io_types=True)
        network = network.half()
    places = _take_weights(model, network.state_dict())
    onnx.save(model, folder / "model.onnx")
    (folder / "weights.json").write_text(json.dumps(places, indent=1), encoding="utf-8")


def _take_weights(model: onnx.ModelProto, state: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Replace large initializers by references to one file; returns what belongs where."""
    known = {}
    for key, tensor in state.items():
        # Tools keep some weights of half-precision models in full precision.
        for array in (tensor.numpy(), tensor.float().numpy()):
            known.setdefault(_start(array), (key, False))
            if array.ndim == 2:
                known.setdefault(_start(array.T), (key, True))
    places: list[dict[str, Any]] = []
    offset = 0
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.nbytes < _SMALL:
            continue
        found = known.get(_start(array))
        if found is None:
            continue
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        set_external_data(tensor, _DATA, offset, array.nbytes)
        tensor.ClearField("raw_data")
        key, transposed = found
        places.append(
            {"key": key, "transposed": transposed, "type": array.dtype.name, "offset": offset}
        )
        offset += -(-array.nbytes // 4096) * 4096
    return places


def _start(array: np.ndarray[Any, Any]) -> tuple[tuple[int, ...], bytes]:
    """What tells one random weight from another: the shape and the first numbers."""
    return array.shape, array[(0,) * (array.ndim - 1)][:64].tobytes()


def fill(name: str, folder: Path, device: str = "cpu") -> None:
    """Write the weights of a model beside its graph, unless they are there."""
    target = folder / _DATA
    if target.exists():
        return
    network = build(name, device)
    state = (network.half() if MODELS[name][-1] else network).state_dict()
    with target.open("wb") as file:
        for place in json.loads((folder / "weights.json").read_text(encoding="utf-8")):
            tensor = state[place["key"]]
            file.seek(place["offset"])
            tensor = tensor.T.contiguous() if place["transposed"] else tensor
            tensor.cpu().numpy().astype(place["type"], copy=False).tofile(file)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    for name in options.names:
        write_graph(name, options.folder / name)
        print(options.folder / name)


if __name__ == "__main__":
    main()
