"""Checks of a file before anything else reads it: size, types, completeness, external data.

ONNX Runtime and the ``onnx`` package are native code. They never get the bytes of the file, only a
model that was parsed and checked here and serialised again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx_ir as ir

from palrp_onnx.errors import ModelError

#: The most nodes, subgraphs included, and with every function written out.
MAX_NODES = 500_000


def check_size(model: ir.Model, place: str) -> None:
    """Refuse a graph that is too large, with all calls of functions inlined.

    A few functions that call each other several times can make more nodes than fit in memory.

    Raises:
        ModelError: There are more than `MAX_NODES`, or a function calls itself.
    """
    calls = {name: _calls(function) for name, function in model.functions.items()}
    known = {name: [each for each in called if each in calls] for name, called in calls.items()}
    try:
        order = list(TopologicalSorter(known).static_order())
    except CycleError as error:
        raise ModelError("A function of the model calls itself", place=place) from error
    sizes: dict[ir.OperatorIdentifier, int] = {}
    for name in order:
        sizes[name] = sum(sizes.get(called, 1) for called in calls[name])
    every = sum(sizes.get(node.op_identifier(), 1) for node in model.graph.all_nodes())
    if every > MAX_NODES:
        raise ModelError(
            f"The graph has {every} nodes with its functions inlined; at most {MAX_NODES} are "
            "supported",
            place=place,
        )


def _calls(function: ir.Function) -> list[ir.OperatorIdentifier]:
    return [node.op_identifier() for node in function.all_nodes()]


def check_values(graph: ir.Graph, place: str) -> None:
    """Refuse inputs without a type or of text, and values that are read but that nothing yields.

    Raises:
        ModelError: There is such a value.
    """
    for value in graph.inputs:
        # Sequences and maps have no such type either.
        if value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
            raise ModelError(
                "An input is not a tensor of a known type", place=f"input {value.name!r}"
            )
        if value.dtype == ir.DataType.STRING:
            raise _text_input(value)
    for node in graph.all_nodes():
        for operand in (*node.inputs, *node.outputs):
            _check_value(operand, place)
    for each in (graph, *graph.subgraphs()):
        for result in each.outputs:
            _check_value(result, place)


def _text_input(value: ir.Value) -> ModelError:
    """The error for an input of strings."""
    readers = [node for node, _ in value.uses()]
    own = [node.op_type for node in readers if node.domain not in ("", "ai.onnx.ml")]
    message = "An input takes strings, whose parts cannot be told apart"
    if own:
        message = f"The tokenizer is inside of the graph: {own[0]} reads strings"
    first = next((v.name for node in readers for v in node.outputs), "IDS")
    return ModelError(
        message,
        place=f"input {value.name!r}",
        hint="Explain the model behind it, with its tokenizer.json: cut the file at the token ids "
        f"with onnx.utils.extract_model(FILE, OUT, [{first!r}, …], OUTPUTS), or export the model "
        "without its tokenizer.",
    )


def _check_value(value: ir.Value | None, place: str) -> None:
    if value is None:
        return
    # Text that is not UTF-8 is read as bytes, and cannot be written again.
    if not isinstance(value.name, str):
        raise ModelError(f"A name is not UTF-8: {value.name!r}", place=place)
    if value.producer() is None and not value.is_graph_input() and not value.is_initializer():
        raise ModelError(f"No node yields the value {value.name!r}, which is read", place=place)


def check_tensors(
    model: ir.Model, own: Sequence[Path], names: Mapping[str, str]
) -> dict[str, Path]:
    """Check every stored tensor against its shape and type, and find their files.

    Args:
        model: The model, whose weights are still in its files.
        own: The model's own files, in one folder, with links resolved.
        names: Names of external data as they are written in the file, where others replace them.

    Returns:
        The files of external data by their names, in order of these, all inside its folder.

    Raises:
        ModelError: Data is missing, does not match its shape, or is outside of the folder.
    """
    files: dict[str, Path] = {}
    for name, tensor in _tensors(model):
        place = f"tensor {name!r}"
        if any(not isinstance(size, int) or size < 0 for size in tensor.shape):
            raise ModelError(f"A stored tensor has an invalid shape: {tensor.shape}", place=place)
        if isinstance(tensor, ir.ExternalTensor):
            target = _external(tensor, own[0].parent, place)
            if target not in own:
                location = str(tensor.location)
                files[names.get(location, location)] = target
        else:
            _check_data(tensor, place)
    return {name: files[name] for name in sorted(files)}


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Name and tensor of initializers and attributes in the graph, subgraphs and functions."""
    functions = list(model.functions.values())
    inner = [graph for function in functions for graph in function.subgraphs()]
    for graph in (model.graph, *model.graph.subgraphs(), *inner):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
    for nodes in (model.graph.all_nodes(), *(each.all_nodes() for each in functions)):
        for node in nodes:
            for attribute in node.attributes.values():
                yield from _in_attribute(attribute, node)


def _in_attribute(attribute: ir.Attr, node: ir.Node) -> Iterator[tuple[str, ir.TensorProtocol]]:
    name = f"{attribute.name} of {node.op_type}"
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.TENSOR:
        yield name, attribute.value
    elif attribute.type == ir.AttributeType.TENSORS:
        yield from ((name, tensor) for tensor in attribute.value)


def _external(tensor: ir.ExternalTensor, root: Path, place: str) -> Path:
    location = str(tensor.location)
    try:
        target = (root / location).resolve()
        inside = not Path(location).is_absolute() and target.is_relative_to(root)
        there = inside and target.is_file()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # a loop of links, a NUL, a name that is too long
        raise ModelError(f"External data is missing: {location!r}", place=place) from error
    if not inside:
        raise ModelError(
            f"External data is outside of the model's folder: {location!r}",
            place=place,
            hint="If it is a link, copy the file that it leads to: cp -L.",
        )
    if not there:
        raise ModelError(f"External data is missing: {location!r}", place=place)
    if target.stat().st_nlink > 1:  # onnx-ir reads none of these
        raise ModelError(
            f"{target.name!r} holds weights and has hard links, which may be outside of its folder",
            place=place,
            hint=f"Use a copy of this file: cp {target.name} copy; mv copy {target.name}.",
        )
    start, needed = tensor.offset or 0, _bytes(tensor, place)
    length = needed if tensor.length is None else tensor.length
    if start < 0 or length < needed or start + length > target.stat().st_size:
        raise ModelError(f"External data {location!r} is shorter than the tensor", place=place)
    return target


def _bytes(tensor: ir.TensorProtocol, place: str) -> int:
    try:
        return tensor.nbytes
    except TypeError as error:
        raise ModelError("A stored tensor has no type", place=place) from error


def _check_data(tensor: ir.TensorProtocol, place: str) -> None:
    """Read a tensor that is inside of the file; large raw ones are external by now."""
    try:
        if tensor.dtype != ir.DataType.STRING:
            tensor.numpy()
    except Exception as error:  # the parser raises many kinds for damaged data
        raise ModelError(
            "The data of a stored tensor does not match its shape", place=place, hint=str(error)
        ) from error
