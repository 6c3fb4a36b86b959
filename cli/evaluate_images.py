"""``palrp-onnx evaluate pixels`` and ``evaluate segmentation``: measurements over images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import command
from .dataset import (
    Comparison,
    Report,
    curves_option,
    estimate,
    files_in,
    grid,
    inputs_option,
    journal_option,
    methods_option,
    open_journal,
    read_names,
    report_options,
    samples_in,
)
from .options import (
    COMPARED_METHODS_HELP,
    FILE_PATH,
    Reporting,
    grouped,
    model_argument,
    output_option,
    reporting_options,
    run_options,
    together,
)
from .progress import counting

if TYPE_CHECKING:
    from palrp_onnx.evaluate.image_maps import ComparedMaps
    from palrp_onnx.evaluate.images import Pixels
    from palrp_onnx.evaluate.segmentation import Segmentation
    from palrp_onnx.model.open import Model

#: As in ``palrp_onnx.evaluate.pixels``, which is slow to import.
_REPLACEMENTS = ("black", "mean", "blur")

_common = together(
    model_argument,
    inputs_option("Images"),
    methods_option,
    report_options,
    journal_option,
    run_options,
    output_option,
    reporting_options,
)
_grouped = grouped(comparison=Comparison, destination=Report, reporting=Reporting)


@command(
    short_help="How long a class is retained while pixels are replaced.",
    epilog=COMPARED_METHODS_HELP,
)
@_common
@click.option(
    "--baseline",
    type=click.Choice(_REPLACEMENTS),
    default=_REPLACEMENTS[0],
    show_default=True,
    help="Replacement of pixels: black, the image's mean colour, or the blurred image.",
)
@click.option(
    "--classes",
    type=FILE_PATH,
    metavar="FILE.json",
    help="True classes: a JSON object of file names without suffix to labels or indices.",
)
@curves_option
@_grouped
def pixels(
    model: Path,
    sources: tuple[Path, ...],
    comparison: Comparison,
    destination: Report,
    baseline: str,
    classes: Path | None,
    curves: Path | None,
    notes: Path | None,
    reporting: Reporting,
) -> None:
    """Replace pixels in the order of the map (PA-LRP, section 4.2).

    Positive perturbation replaces the most relevant pixels first, negative the least relevant. The
    result is the area under the share of images that retain their class, from 10 % to 90 % of the
    pixels, with a 95 % interval over the images. It is at most .8; low is good for positive, high
    for negative. Maps and shares are of the predicted class; with --classes, or a --target for all
    images, also of the true class.
    """
    from palrp_onnx.errors import UsageError
    from palrp_onnx.evaluate.images import Perturbed, evaluate_pixels
    from palrp_onnx.model.open import Model

    if classes is not None and comparison.target != "pred":
        raise UsageError(
            "--classes and --target both name the true class", hint="Give only one of them."
        )
    opened = Model.open(model)
    files = list(files_in(sources))
    truth = None if classes is None else read_names(classes, "label or index")
    journal = open_journal(notes, Perturbed, opened, comparison, baseline=baseline, classes=truth)
    if comparison.target != "pred":
        truth = dict.fromkeys((file.stem for file in files), comparison.target)
    with counting(len(files), quiet=reporting.quiet) as advance:
        found = evaluate_pixels(
            _compared(opened, comparison),
            samples_in(files, opened),
            baseline=baseline,
            truth=truth,
            journal=journal,
            progress=advance,
        )
    drawn = {} if curves is None else {curves: _drawn(curves, found, opened)}
    destination.write(found, _pixels_table(found), drawn)


@command(
    short_help="How well a map separates an object from its background.",
    epilog=COMPARED_METHODS_HELP,
)
@_common
@click.option(
    "--masks",
    type=FILE_PATH,
    required=True,
    metavar="DIR",
    help="A PNG of the same name for every image: 0 is background, all else foreground.",
)
@click.option(
    "--ignore",
    "ignored",
    type=click.IntRange(0, 255),
    metavar="LEVEL",
    help="Level of pixels in the masks that are ignored, such as 255 in PASCAL VOC.",
)
@_grouped
def segmentation(
    model: Path,
    sources: tuple[Path, ...],
    comparison: Comparison,
    destination: Report,
    masks: Path,
    ignored: int | None,
    notes: Path | None,
    reporting: Reporting,
) -> None:
    """Compare maps with masks of objects (PA-LRP, section 4.2).

    Pixels above the mean of a map count as foreground. Pixel accuracy and mean IoU are of counts
    over all images, mAP is the mean of the images' average precision; all have 95 % intervals over
    the images.
    """
    from palrp_onnx.evaluate.images import evaluate_segmentation
    from palrp_onnx.evaluate.masks import read_mask
    from palrp_onnx.evaluate.segmentation import MaskScores
    from palrp_onnx.model.open import Model

    opened = Model.open(model)
    files = list(files_in(sources))
    journal = open_journal(notes, MaskScores, opened, comparison)
    labels = (read_mask(masks / f"{file.stem}.png", ignored=ignored) for file in files)
    with counting(len(files), quiet=reporting.quiet) as advance:
        found = evaluate_segmentation(
            _compared(opened, comparison),
            zip(samples_in(files, opened), labels, strict=True),
            target=comparison.target,
            journal=journal,
            progress=advance,
        )
    destination.write(found, _segmentation_table(found))


def _compared(model: Model, comparison: Comparison) -> ComparedMaps:
    from palrp_onnx.evaluate.image_maps import ComparedMaps
    from palrp_onnx.inputs import read_labels

    return ComparedMaps(comparison.on(model), read_labels(model.path))


def _drawn(place: Path, found: Mapping[str, Pixels], model: Model) -> bytes:
    from palrp_onnx.evaluate.pixels import TENTHS
    from palrp_onnx.render.curves import Chart, render_curves

    first = next(iter(found.values()))
    return render_curves(
        "Perturbation of pixels",
        f"{first.samples} images, {first.baseline} baseline, model {model.sha256[:12]}",
        [tenth / 10 for tenth in TENTHS],
        [
            Chart(
                way,
                f"pixels taken out, the {what} relevant first",
                {name: getattr(each.predicted, way).curve for name, each in found.items()},
            )
            for way, what in (("positive", "most"), ("negative", "least"))
        ],
        "share that keeps its class",
        vector=place.suffix.lower() == ".svg",
    )


def _pixels_table(found: Mapping[str, Pixels]) -> str:
    first = next(iter(found.values()))
    parts = ("predicted",) if first.target is None else ("predicted", "target")
    heads = [f"{part}, {way}" for part in parts for way in ("positive", "negative")]
    rows = {
        name: [
            estimate(area.area, area.low, area.high)
            for part in parts
            for area in (getattr(each, part).positive, getattr(each, part).negative)
        ]
        for name, each in found.items()
    }
    title = f"{first.samples} images, {first.baseline} baseline; areas with 95 % intervals"
    return "\n".join([title, "", *grid(heads, rows)]) + "\n"


def _segmentation_table(found: Mapping[str, Segmentation]) -> str:
    rows = {
        name: [
            estimate(figure.value, figure.low, figure.high)
            for figure in (each.pixel_accuracy, each.mean_iou, each.mean_ap)
        ]
        for name, each in found.items()
    }
    title = f"{next(iter(found.values())).samples} images, with 95 % intervals"
    return "\n".join([title, "", *grid(["pixel accuracy", "mIoU", "mAP"], rows)]) + "\n"
