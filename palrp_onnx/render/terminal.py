"""Tables for the terminal."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from palrp_onnx.machine import size_text
from palrp_onnx.printable import printable

if TYPE_CHECKING:
    from palrp_onnx.inspection import Inspection, Usage, Why


def inspection_table(inspection: Inspection) -> RenderableType:
    """The report of ``inspect``: inputs, position sites, operations, coverage, verdict."""
    facts = inspection.model
    head = _text(
        f"{facts.nodes} nodes, opset {facts.opset}, {facts.producer or 'unknown producer'}, "
        f"sha256 {facts.sha256[:16]}…, explains output {inspection.output!r}"
    )
    coverage = inspection.coverage
    share = 100 * coverage.covered / max(coverage.reached, 1)
    tail = _text(
        f"{coverage.covered} of {coverage.reached} nodes on the path of relevance have a rule "
        f"({share:.1f} %)\n",
    )
    tail.append_text(
        _text(inspection.verdict, "bold green" if inspection.explainable else "bold red")
    )
    tables = [_inputs(inspection), _sites(inspection), _operations(inspection)]
    if inspection.uncertain:
        tables.append(_uncertain(inspection))
    notes = [*_rewritten(inspection), *_refused(inspection), *_faults(inspection)]
    notes += map(_text, inspection.notes)
    if inspection.memory is not None:
        notes.append(_memory(inspection.memory))
    if inspection.values:
        tables.append(_values(inspection))
    return Group(head, *tables, *map(_why, inspection.why), *notes, tail)


def _memory(usage: Usage) -> Text:
    """The forecast in one line."""
    free = "" if usage.free is None else f"; free are {size_text(usage.free)}"
    auto = f"--memory auto is {usage.auto}" if usage.auto else "neither fits"
    return _text(
        f"memory for {usage.tokens} tokens, about: fast {size_text(usage.fast)}, bounded "
        f"{size_text(usage.bounded)}, of which {size_text(usage.apart)} need not be free (weights "
        f"in the file, the program){free}: {auto}"
    )


def as_text(shown: RenderableType, width: int = 100) -> str:
    """What a terminal without colours shows."""
    console = Console(width=width, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def _text(text: str, style: str = "") -> Text:
    """Names come from the file: they are not markup, and their control characters are escaped."""
    return Text("\n".join(map(printable, text.split("\n"))), style=style)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=_text(title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _inputs(inspection: Inspection) -> Table:
    table = _table("Inputs", "name", "type", "role", "because")
    for item in inspection.inputs:
        dims = " × ".join(str(d) for d in item.shape)
        table.add_row(
            _text(item.name), _text(f"{item.dtype} [{dims}]"), item.role, _text(item.reason)
        )
    return table


def _sites(inspection: Inspection) -> Table:
    table = _table("Positions", "site", "kind", "where", "because")
    for site in inspection.sites:
        table.add_row(_text(site.name), site.kind, _text(site.node), _text(site.evidence))
    return table


def _values(inspection: Inspection) -> Table:
    table = _table("Values", "name")
    for name in inspection.values:
        table.add_row(_text(name))
    return table


def _why(value: Why) -> Table:
    kind = "content" if value.content else "no content"
    depth = "" if value.layer is None else f", {value.layer} attention layer(s) before it"
    title = f"{value.name}: made by {value.made_by}; {kind}{depth}"
    table = _table(title, "read by", "operand", "role", "because")
    for use in value.uses:
        table.add_row(_text(use.node), str(use.operand), use.role, _text(use.reason))
    return table


def _operations(inspection: Inspection) -> Table:
    table = _table("Operations", "operation", "nodes", "on the path", "rule")
    for item in inspection.operations:
        name = f"{item.domain}.{item.op_type}" if item.domain else item.op_type
        style = "red" if item.status == "unsupported" else None
        rule = item.rule if item.status == "rule" else item.status
        table.add_row(
            _text(name), str(item.count), str(item.reached or ""), _text(rule), style=style
        )
    return table


def _uncertain(inspection: Inspection) -> Table:
    table = _table("In doubt", "value", "taken for", "but", "otherwise say")
    for item in inspection.uncertain:
        table.add_row(_text(item.name), item.role, _text(item.doubt), _text(f"--role {item.say}"))
    return table


def _rewritten(inspection: Inspection) -> list[RenderableType]:
    counts = [f"{name} × {count}" for name, count in inspection.rewritten.items()]
    return [_text("Changed before rules apply: " + ", ".join(counts))] if counts else []


def _faults(inspection: Inspection) -> list[RenderableType]:
    return [_text(fault, style="red") for fault in inspection.faults]


def _refused(inspection: Inspection) -> list[RenderableType]:
    names = inspection.coverage.unsupported
    return [_text("No rule for: " + "; ".join(names), style="red")] if names else []
