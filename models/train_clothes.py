"""Train the clothes classifier, export it, and measure it on held-out pictures.

    python models/train_clothes.py -o models/clothes-vit
    python models/train_clothes.py --evaluate models/clothes-vit
    python models/train_clothes.py --write clothes --samples 100

Data: items of Fashion-MNIST (Zalando SE, MIT licence; Debian's package ``dataset-fashion-mnist``),
tinted and pasted at a random place and size on dimmed crops of scikit-image's photographs, so it is
known which pixels show the item. Held out are the 10,000 test items and the right quarter of every
photograph. A ViT with learned positions: 64 × 64 pixels, patches of 8 × 8, four layers of width
128. Needs the extra ``train``, and ``apt-get`` and ``dpkg`` for the items; elsewhere put the four
files of Fashion-MNIST into the folder ``fashion-mnist`` of ``--cache``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 0
SIZE = 64
PATCH = 8
#: Sides and places of items are multiples of this many pixels: fewer things to learn.
STEP = 4
#: Smallest and largest side of an item, and of a crop before it is resized to SIZE, in pixels.
ITEM = (24, 40)
CROP = (64, 100)
#: Darker pixels of an item are its background.
THRESHOLD = 16
BATCH = 64
RATE = 1e-3
PATCHES = (SIZE // PATCH) ** 2
#: Patches looked at in the first part of training, and the share of the steps in that part.
FEW = 20
EASY = 0.75
PACKAGE = "dataset-fashion-mnist=0.0~git20200523.55506a9-1"
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
#: CC0 or, ``rocket``, in the public domain; they come with scikit-image.
PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "camera", "brick", "grass", "gravel")

Pixels = NDArray[np.uint8]


def fetch_items(cache: Path) -> Path:
    """The folder of Fashion-MNIST's files, unpacked from Debian's package where there is none."""
    folder = cache / "fashion-mnist"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=scratch, check=True)
            archive = next(Path(scratch).glob("*.deb"))
            subprocess.run(["dpkg", "-x", str(archive), scratch], check=True)
            (Path(scratch) / "usr/share/datasets/fashion-mnist").rename(folder)
    return folder


def read_items(cache: Path, part: str) -> tuple[Pixels, Pixels]:
    """Items (N, 28, 28), grey on black, and their labels; ``part`` is ``train`` or ``t10k``."""
    folder = fetch_items(cache)
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as stream:
        items = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as stream:
        return items, np.frombuffer(stream.read(), np.uint8, offset=8)


def read_photographs(held_out: bool) -> list[Pixels]:
    """The right quarters of the photographs where held out, the rest of them otherwise."""
    import skimage.data
    from PIL import Image

    parts = []
    for name in PHOTOGRAPHS:
        pixels = np.asarray(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
        edge = pixels.shape[1] * 3 // 4
        parts.append(pixels[:, edge:] if held_out else pixels[:, :edge])
    return parts


def compose(
    item: Pixels, photographs: list[Pixels], draw: np.random.Generator
) -> tuple[Pixels, NDArray[np.bool_]]:
    """A picture (SIZE, SIZE, 3) of an item before a photograph, and which pixels are the item's."""
    from PIL import Image

    photograph = photographs[draw.integers(len(photographs))]
    side = int(draw.integers(CROP[0], CROP[1] + 1))
    top, left = (int(draw.integers(n - side + 1)) for n in photograph.shape[:2])
    crop = Image.fromarray(photograph[top : top + side, left : left + side])
    picture = np.array(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) // 2
    side = STEP * int(draw.integers(ITEM[0] // STEP, ITEM[1] // STEP + 1))
    grey = np.asarray(Image.fromarray(item).resize((side, side), Image.Resampling.BILINEAR))
    top, left = STEP * draw.integers((SIZE - side) // STEP + 1, size=2)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + side, left : left + side] = grey > THRESHOLD
    # The photograph is dimmed, and the darkest parts of an item keep half of its tint: brightness
    # mostly tells them apart, which a small model learns from few pictures.
    bright = 0.5 + 0.5 * grey[grey > THRESHOLD, None] / 255
    picture[mask] = np.round(bright * draw.uniform(128, 255, size=3)).astype(np.uint8)
    return picture, mask


def held_out_pictures(cache: Path, count: int) -> list[tuple[Pixels, NDArray[np.bool_], int]]:
    """(picture, mask, label) of the first held-out items, the same in every run."""
    items, labels = read_items(cache, "t10k")
    photographs = read_photographs(held_out=True)
    found = []
    for index in range(count):
        draw = np.random.default_rng((SEED, index))
        found.append((*compose(items[index], photographs, draw), int(labels[index])))
    return found


def processor() -> Any:
    """What turns a picture into pixels; saved beside the model."""
    from transformers import ViTImageProcessor

    return ViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def normalised(pictures: list[Pixels]) -> Any:
    """What ``processor`` gives for pictures of SIZE × SIZE, faster."""
    import torch

    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1


def build_model() -> Any:
    """A small ViT, not trained."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=SIZE,
        patch_size=PATCH,
        initializer_range=0.08,
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )
    return ViTForImageClassification(config)


def loss_of(
    model: Any, finder: Any, kept: int, pixels: Any, masks: Any, labels: Any
) -> tuple[Any, Any]:
    """(loss, logits): cross entropy, and what patches tell of the item, which trains faster.

    ``finder`` says of each patch how much of it is the item, and patches of the item predict its
    class too. Of each picture only the ``kept`` patches with most of the item are looked at, and
    random ones where it has fewer.
    """
    import torch
    import torch.nn.functional as functional

    shares = functional.avg_pool2d(masks.float()[:, None], PATCH).flatten(1)
    chosen = (shares + 0.001 * torch.rand_like(shares)).topk(kept).indices
    shares = shares.gather(1, chosen)
    tokens = model.vit.embeddings(pixels)
    places = torch.cat([torch.zeros_like(chosen[:, :1]), chosen + 1], dim=1)
    tokens = tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))
    states = model.vit.layernorm(model.vit.encoder(tokens).last_hidden_state)
    logits = model.classifier(states)
    found = finder(states[:, 1:]).squeeze(-1)
    own = shares > 0.5
    patches = labels[:, None].expand_as(own)
    loss = (
        functional.cross_entropy(logits[:, 0], labels)
        + 0.5 * functional.cross_entropy(logits[:, 1:][own], patches[own])
        + functional.binary_cross_entropy_with_logits(found, shares)
    )
    return loss, logits[:, 0]


def batches(items: Pixels, labels: Pixels, count: int) -> Iterator[tuple[Any, Any, Any]]:
    """``count`` times (pixels, masks, labels): every item in a new picture each time it comes."""
    import torch

    draw = np.random.default_rng(SEED)
    photographs = read_photographs(held_out=False)
    order: list[int] = []
    for _ in range(count):
        if len(order) < BATCH:
            order = draw.permutation(len(items)).tolist()
        chosen, order = order[:BATCH], order[BATCH:]
        pairs = [compose(items[index], photographs, draw) for index in chosen]
        masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))
        targets = torch.from_numpy(labels[chosen].astype(np.int64))
        yield normalised([picture for picture, _ in pairs]), masks, targets


def train(output: Path, cache: Path, steps: int) -> None:
    """Train, save and export."""
    import torch

    torch.manual_seed(SEED)
    model = build_model()
    finder = torch.nn.Linear(model.config.hidden_size, 1)
    parameters = [*model.parameters(), *finder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=steps + 1, pct_start=0.03
    )
    right: list[float] = []
    model.train()
    for step, batch in enumerate(batches(*read_items(cache, "train"), steps), 1):
        kept = FEW if step <= EASY * steps else PATCHES
        loss, logits = loss_of(model, finder, kept, *batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        right.append((logits.argmax(-1) == batch[-1]).float().mean().item())
        if step % 50 == 0:
            print(f"step {step} of {steps}: accuracy {np.mean(right[-50:]):.3f}", flush=True)
    save(model.eval(), output)
    write_sample(output / "sample.png", cache)


def write_sample(path: Path, cache: Path) -> None:
    """A held-out sneaker before the table of the photograph ``coffee``."""
    from PIL import Image

    picture, _, _ = held_out_pictures(cache, 10)[9]
    Image.fromarray(picture).save(path)


def save(model: Any, output: Path) -> None:
    """Save as a Hugging Face folder and export that."""
    from palrp_onnx.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor().save_pretrained(folder)
        export_model(folder, output, task="image-classification")


def write(folder: Path, cache: Path, count: int) -> None:
    """Held-out pictures and masks as PNG, and their true classes, for ``palrp-onnx evaluate``."""
    from picture_files import write_pictures
    from PIL import Image

    found = enumerate(held_out_pictures(cache, count))
    write_pictures(
        folder,
        ((k, Image.fromarray(picture), mask, LABELS[label]) for k, (picture, mask, label) in found),
    )


def evaluate(folder: Path, cache: Path, count: int) -> float:
    """Held-out accuracy of the exported file, through this project's own image reader."""
    import onnxruntime

    from palrp_onnx.inputs import open_sample
    from palrp_onnx.model.open import Model

    model = Model.open(folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(model.path))
    right = 0
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch), cache, count)
        classes = json.loads((Path(scratch) / "classes.json").read_text(encoding="utf-8"))
        for name, label in classes.items():
            sample = open_sample(
                Path(scratch) / "images" / f"{name}.png",
                model_path=model.path,
                graph_inputs=model.inputs,
                tokenizer=None,
            )
            (logits,) = session.run(None, sample.feeds)
            right += LABELS[int(logits.argmax())] == label
    return right / count


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cache = Path(tempfile.gettempdir()) / "palrp-models"
    parser.add_argument("-o", "--output", type=Path, default=cache / "clothes-vit")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only write pictures")
    parser.add_argument("--samples", type=int, default=1000, help="held-out pictures")
    parser.add_argument("--steps", type=int, default=3600, help=f"of {BATCH} pictures")
    parser.add_argument("--cache", type=Path, default=cache)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.write is not None:
        write(options.write, options.cache, options.samples)
        return
    if options.evaluate is None:
        train(options.output, options.cache, options.steps)
    folder = options.evaluate or options.output
    accuracy = evaluate(folder, options.cache, options.samples)
    report = {"model": str(folder), "held_out": options.samples, "accuracy": accuracy}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
