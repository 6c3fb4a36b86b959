"""Child of ``neighbours.py``: efficient AttnLRP in PyTorch, through the public API of LXT."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import serving
import torch


def declare_operators() -> Any:
    """Declare operators that a CUDA build of torchvision needs to import a CPU build of torch.

    The operators are never called; matching builds have their own.
    """
    declaring: Any = torch.library
    library = declaring.Library("torchvision", "FRAGMENT")
    if torch.version.cuda is None and "+cpu" not in version("torchvision"):
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    return library


# An operator lives as long as the library that declares it.
_OPERATORS = declare_operators()

from lxt.efficient import monkey_patch  # noqa: E402
from transformers.models.llama import modeling_llama  # noqa: E402


def opening(model: Path, source: Path, _: str) -> serving.Explain:
    """Relevance of token embeddings for the predicted class."""
    monkey_patch(modeling_llama)
    network = modeling_llama.LlamaForSequenceClassification.from_pretrained(model).eval()
    network.requires_grad_(False)
    tokens = torch.from_numpy(np.load(source)["input_ids"])

    def explain() -> list[float]:
        embedded = network.get_input_embeddings()(tokens).requires_grad_()
        logits = network(inputs_embeds=embedded, use_cache=False).logits
        logits[0].max().backward()
        content: list[float] = (embedded * embedded.grad).sum(-1)[0].tolist()
        return content

    return explain


if __name__ == "__main__":
    serving.main(opening, ["lxt", "torch", "transformers"])
