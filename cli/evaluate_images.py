"""``palrp-onnx evaluate pixels`` and ``evaluate segmentation``: measurements over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .dataset import files_in, inputs_option, methods_option, report_options
from .options import (
    FILE_PATH,
    model_argument,
    output_option,
    reporting_options,
    run_options,
    together,
)
from .progress import counting
from .writing import write_files, write_stdout

if TYPE_CHECKING:
    from palrp_onnx.evaluate.image_contests import Pixels
    from palrp_onnx.evaluate.images import Rivals
    from palrp_onnx.evaluate.perturbation import Area
    from palrp_onnx.evaluate.segmentation import Estimate, Segmentation
    from palrp_onnx.graph.model import Model
    from palrp_onnx.inputs import Sample

#: ``palrp_onnx.evaluate.pixels`` knows these too; it is slow to import.
_REPLACEMENTS = ("black", "mean", "blur")

_common = together(
    model_argument,
    inputs_option("Images"),
    methods_option,
    report_options,
    run_options,
    output_option,
    reporting_options,
)


@click.command(short_help="How long a class is kept as pixels are taken out.")
@_common
@click.option(
    "--baseline",
    type=click.Choice(_REPLACEMENTS),
    default=_REPLACEMENTS[0],
    show_default=True,
    help="What takes the place of pixels: black, the image's mean colour, or the image blurred.",
)
@click.option(
    "--classes",
    type=FILE_PATH,
    metavar="FILE.json",
    help="True classes: an object of file names without suffix, and labels or indices.",
)
def pixels(
    model: Path,
    sources: tuple[Path, ...],
    methods: tuple[str, ...],
    place: Path | None,
    as_json: bool,
    baseline: str,
    classes: Path | None,
    target: str,
    output_name: str | None,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Take pixels out in the order of the map (PA-LRP, section 4.2).

    Positive perturbation takes the most relevant out first, negative the least relevant. The area
    is that under the share of images that keep their class, from 10 % to 90 % of the pixels, with
    a 95 % interval over the images: .8 at most, low is good for positive, high for negative.
    Maps and shares are of the predicted class; with --classes, or a --target for all images, of
    the true class as well.
    """
    del verbose  # read by the program
    from palrp_onnx.errors import UsageError
    from palrp_onnx.evaluate.image_contests import contest_pixels
    from palrp_onnx.graph.model import Model

    if classes is not None and target != "pred":
        raise UsageError("--classes and --target both say what the true class is")
    opened = Model.open(model)
    files = list(files_in(sources))
    truth = None if classes is None else _read_classes(classes)
    if target != "pred":
        truth = dict.fromkeys((file.stem for file in files), target)
    with counting(len(files), quiet=quiet) as tell:
        found = contest_pixels(
            _rivals(opened, methods, output_name, options),
            _samples(opened, files),
            baseline=baseline,
            truth=truth,
            progress=tell,
        )
    _report(found, _pixels_table(found), place, as_json)


@click.command(short_help="How well a map tells an object from its background.")
@_common
@click.option(
    "--masks",
    type=FILE_PATH,
    required=True,
    metavar="DIR",
    help="A PNG for every image, of the same name: 0 is background, all else foreground.",
)
@click.option(
    "--ignore",
    "ignored",
    type=click.IntRange(0, 255),
    metavar="LEVEL",
    help="Pixels of the masks that are not judged, such as 255 in PASCAL VOC.",
)
def segmentation(
    model: Path,
    sources: tuple[Path, ...],
    methods: tuple[str, ...],
    place: Path | None,
    as_json: bool,
    masks: Path,
    ignored: int | None,
    target: str,
    output_name: str | None,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Hold maps against masks of objects (PA-LRP, section 4.2).

    What lies above the mean of a map is taken for foreground. Pixel accuracy and mean IoU are of
    counts over all images, mAP is the mean of the images' average precision; all with 95 %
    intervals over the images.
    """
    del verbose  # read by the program
    from palrp_onnx.evaluate.image_contests import contest_segmentation
    from palrp_onnx.evaluate.masks import read_mask
    from palrp_onnx.graph.model import Model

    opened = Model.open(model)
    files = list(files_in(sources))
    labels = (read_mask(masks / f"{file.stem}.png", ignored=ignored) for file in files)
    with counting(len(files), quiet=quiet) as tell:
        found = contest_segmentation(
            _rivals(opened, methods, output_name, options),
            zip(_samples(opened, files), labels, strict=True),
            target=target,
            progress=tell,
        )
    _report(found, _segmentation_table(found), place, as_json)


def _rivals(
    model: Model, methods: tuple[str, ...], output: str | None, options: dict[str, Any]
) -> Rivals:
    from palrp_onnx.evaluate.baselines import competitor
    from palrp_onnx.evaluate.images import Rivals
    from palrp_onnx.inputs import read_labels

    competitors = {name: competitor(name, model, output=output, **options) for name in methods}
    return Rivals(competitors, read_labels(model.path))


def _samples(model: Model, files: list[Path]) -> Iterator[Sample]:
    from palrp_onnx.inputs import open_sample

    for file in files:
        yield open_sample(file, model_path=model.path, graph_inputs=model.inputs, tokenizer=None)


def _read_classes(path: Path) -> dict[str, str]:
    from palrp_onnx.errors import InputError
    from palrp_onnx.inputs.reading import read_json_object

    found = read_json_object(path)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{name!r} has {value!r}, no label or index", place=str(path))
    return {name: str(value) for name, value in found.items()}


def _report(
    found: Mapping[str, Pixels] | Mapping[str, Segmentation],
    table: str,
    place: Path | None,
    as_json: bool,
) -> None:
    import msgspec

    data = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    if place is not None:
        write_files({place: data})
    write_stdout(data if as_json else table.encode())


def _pixels_table(found: Mapping[str, Pixels]) -> str:
    first = next(iter(found.values()))
    parts = ("predicted",) if first.target is None else ("predicted", "target")
    heads = [f"{part}, {way}" for part in parts for way in ("positive", "negative")]
    rows = {
        name: [
            _cell(getattr(getattr(each, part), way), "area")
            for part in parts
            for way in ("positive", "negative")
        ]
        for name, each in found.items()
    }
    title = f"{first.samples} images, {first.baseline} baseline; areas with 95 % intervals"
    return _table(title, heads, rows)


def _segmentation_table(found: Mapping[str, Segmentation]) -> str:
    rows = {
        name: [_cell(each, "value") for each in (f.pixel_accuracy, f.mean_iou, f.mean_ap)]
        for name, f in found.items()
    }
    samples = next(iter(found.values())).samples
    title = f"{samples} images, with 95 % intervals"
    return _table(title, ["pixel accuracy", "mIoU", "mAP"], rows)


def _cell(figure: Area | Estimate, name: str) -> str:
    return f"{getattr(figure, name):.3f} ({figure.low:.3f} … {figure.high:.3f})"


def _table(title: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    width = max(map(len, rows)) + 2
    lines = [title, "", " " * width + "".join(f"{head:>26}" for head in heads)]
    lines += [
        f"{name:{width}}" + "".join(f"{cell:>26}" for cell in cells) for name, cells in rows.items()
    ]
    return "\n".join(lines) + "\n"
