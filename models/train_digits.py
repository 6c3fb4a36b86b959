"""Train the digit classifier, export it, and measure it on held-out digits.

    python models/train_digits.py -o models/digits-vit
    python models/train_digits.py --evaluate models/digits-vit
    python models/train_digits.py --write digits --samples 100

Data: the 1,797 handwritten digits (8 × 8) of scikit-learn; every fifth is held out. A ViT with
learned positions: 16 × 16 pixels, patches of 2 × 2, three layers of width 64. Needs the extra
``train``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SEED = 0
SIZE = 16
#: Digits are enlarged to this size, as a person would store them, before they are preprocessed.
PICTURE = 64
#: What is lighter belongs to the stroke.
INK = 100


def pictures() -> tuple[list[Any], np.ndarray]:
    """The digits as greyscale pictures, and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * 255 / 16).astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return [Image.fromarray(d).resize((PICTURE, PICTURE), bicubic) for d in grey], digits.target


def held_out(count: int) -> np.ndarray:
    """Mask of the held-out digits."""
    return np.arange(count) % 5 == 0


def processor() -> Any:
    """What turns a picture into pixels; saved beside the model."""
    from transformers import ViTImageProcessor

    return ViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def shifted(pixels: Any) -> Any:
    """A batch moved by up to one pixel: the training set is small."""
    import torch

    rows, columns = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(pixels, (rows, columns), dims=(2, 3))


def train(output: Path, epochs: int) -> None:
    """Train, save and export."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    from palrp_onnx.export import export_model

    torch.manual_seed(SEED)
    images, labels = pictures()
    prepare = processor()
    rgb = [image.convert("RGB") for image in images]
    pixels = prepare(rgb, return_tensors="pt")["pixel_values"]
    targets = torch.from_numpy(labels)
    tests = torch.from_numpy(held_out(len(images)))
    names = {i: str(i) for i in range(10)}
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=SIZE,
        patch_size=2,
        hidden_dropout_prob=0.05,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    model = ViTForImageClassification(config)
    places = torch.nonzero(~tests).ravel()
    steps = epochs * (len(places) // 64 + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=steps + 1, pct_start=0.1
    )
    for epoch in range(epochs):
        model.train()
        for group in places[torch.randperm(len(places))].split(64):
            logits = model(pixel_values=shifted(pixels[group])).logits
            loss = torch.nn.functional.cross_entropy(logits, targets[group], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            model.eval()
            with torch.no_grad():
                right = model(pixel_values=pixels[tests]).logits.argmax(-1) == targets[tests]
            print(f"epoch {epoch + 1}: held-out {right.float().mean().item():.4f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model.eval().save_pretrained(folder)
        prepare.save_pretrained(folder)
        export_model(folder, output, task="image-classification")
    sample = int(np.flatnonzero(held_out(len(images)) & (labels == 3))[0])
    images[sample].save(output / "sample.png")


def write(folder: Path, count: int) -> None:
    """Held-out digits, masks of their strokes, and classes, for ``palrp-onnx evaluate``."""
    from picture_files import write_pictures

    images, labels = pictures()
    chosen = np.flatnonzero(held_out(len(images)))[:count]
    strokes = {k: np.asarray(images[k]) > INK for k in chosen}
    write_pictures(folder, ((k, images[k], strokes[k], int(labels[k])) for k in chosen))


def evaluate(folder: Path) -> float:
    """Held-out accuracy of the exported file, through this project's own image reader."""
    import onnxruntime

    from palrp_onnx.inputs import open_sample
    from palrp_onnx.model.open import Model

    model = Model.open(folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(model.path))
    images, labels = pictures()
    tests = np.flatnonzero(held_out(len(images)))
    right = 0
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "digit.png"
        for index in tests:
            images[index].save(path)
            sample = open_sample(
                path, model_path=model.path, graph_inputs=model.inputs, tokenizer=None
            )
            (logits,) = session.run(None, sample.feeds)
            right += int(logits.argmax() == labels[index])
    return right / len(tests)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "digits-vit")
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="only write pictures")
    parser.add_argument("--samples", type=int, default=360, help="held-out pictures")
    parser.add_argument("--epochs", type=int, default=120)
    options = parser.parse_args()
    if options.write is not None:
        write(options.write, options.samples)
        return
    if options.evaluate is None:
        train(options.output, options.epochs)
    folder = options.evaluate or options.output
    print(json.dumps({"model": str(folder), "accuracy": evaluate(folder)}))


if __name__ == "__main__":
    main()
