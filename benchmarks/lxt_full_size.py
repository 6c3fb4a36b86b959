"""Child of ``cuda.py``: efficient AttnLRP in PyTorch (LXT) in bfloat16 on a full-size model.

    python benchmarks/lxt_full_size.py NAME DEVICE ROUNDS BATCH,TOKENS …

The weights are those of ``full_size.py``: the same seed on the same device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from full_size import build
from lxt_child import modeling_llama, monkey_patch


def main() -> None:
    """Command line."""
    name, device, rounds, *sizes = sys.argv[1:]
    monkey_patch(modeling_llama)
    network = build(name, device).to(torch.bfloat16)
    network.requires_grad_(False)
    for size in sizes:
        batch, tokens = map(int, size.split(","))
        try:
            _row(network, name, device, int(rounds), batch, tokens)
        except torch.OutOfMemoryError:
            print(f"{name:<16}{batch:>6}{tokens:>7}  memory ran out", flush=True)
            torch.cuda.empty_cache()


def _row(
    network: torch.nn.Module, name: str, device: str, rounds: int, batch: int, tokens: int
) -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 8000, (batch, tokens))).to(device)

    def forward() -> None:
        with torch.no_grad():
            network(input_ids=ids, use_cache=False)

    def explain() -> None:
        embedded = network.get_input_embeddings()(ids).requires_grad_()
        logits = network(inputs_embeds=embedded, use_cache=False).logits
        last = logits if logits.ndim == 2 else logits[:, -1]
        last[:, 0].sum().backward()
        (embedded * embedded.grad).float().sum(-1).cpu()

    medians = [_median(each, rounds, device) * 1e3 for each in (forward, explain)]
    print(
        f"{name:<16}{batch:>6}{tokens:>7}{medians[0]:>11.2f}{medians[1]:>11.2f}"
        f"{medians[1] / medians[0]:>6.2f}",
        flush=True,
    )


def _median(task: Callable[[], None], rounds: int, device: str) -> float:
    times = []
    for attempt in range(rounds + 2):
        start = time.perf_counter()
        task()
        if device != "cpu":
            torch.cuda.synchronize()
        if attempt > 1:
            times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
