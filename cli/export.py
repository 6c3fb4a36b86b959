"""``palrp-onnx export``: a Transformers model → a folder that explain can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palrp_onnx.files import to_json

from .command import command
from .options import FILE_PATH, Reporting, grouped, reporting_options
from .writing import write_stdout

if TYPE_CHECKING:
    from palrp_onnx.export import ExportReport


@command(short_help='Export a Transformers model to ONNX (needs "palrp-onnx[export]").')
@click.argument("source")
@click.option("-o", "folder", type=FILE_PATH, required=True, metavar="DIR", help="Output folder.")
@click.option(
    "--task",
    help="Task of the model, such as text-classification; by default from its architecture.",
)
@click.option("--opset", type=click.IntRange(min=1), help="ONNX opset.")
@reporting_options
@grouped(reporting=Reporting)
def export(
    source: str, folder: Path, task: str | None, opset: int | None, reporting: Reporting
) -> None:
    """Export SOURCE, a folder or a model's name, into DIR, and compare it with PyTorch.

    The report goes to stdout as JSON.
    """
    from palrp_onnx.export import export_model

    report = export_model(source, folder, task=task, opset=opset)
    write_stdout(to_json(report))
    if not reporting.quiet:
        _print_summary(report)


def _print_summary(report: ExportReport) -> None:
    click.echo(f"{report.path}: {report.task}, opset {report.opset}", err=True)
    for output, difference in report.differences.items():
        click.echo(f"  {output} differs from PyTorch by at most {difference:.1e}", err=True)
