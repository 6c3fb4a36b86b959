"""Which conditional branches an input takes; a plan of a model is valid for one such choice."""

from __future__ import annotations

from dataclasses import dataclass

from palrp_onnx.model.branches import condition_names, with_branches
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward
from palrp_onnx.types import Feeds

#: The condition of every branch, outer branches before nested ones.
Taken = tuple[bool, ...]


@dataclass(frozen=True)
class _Step:
    """A model with some branches chosen.

    Attributes:
        model: The model.
        names: Names of the conditions of its next branches.
        forward: Computes them; ``None`` if all are inputs.
    """

    model: Model
    names: list[str]
    forward: RuntimeForward | None


class Branches:
    """Decides for every input which branches of ``model`` it takes.

    Only the nodes that conditions depend on are run; a model without branches runs nothing.
    """

    def __init__(self, model: Model) -> None:
        self._steps: dict[Taken, _Step] = {(): _step(model)}

    def taken(self, feeds: Feeds) -> Taken:
        """The conditions of all branches that this input takes; empty if there are none.

        Raises:
            InputError: The conditions cannot be computed for this input.
        """
        taken: Taken = ()
        while (step := self._steps[taken]).names:
            values = {**feeds, **(step.forward(feeds) if step.forward is not None else {})}
            choice = [bool(values[name].item()) for name in step.names]
            longer = (*taken, *choice)
            if longer not in self._steps:
                self._steps[longer] = _step(with_branches(step.model, choice))
            taken = longer
        return taken


def _step(model: Model) -> _Step:
    names = condition_names(model)
    fed = {signature.name for signature in model.inputs}
    computed = [name for name in dict.fromkeys(names) if name not in fed]
    forward = RuntimeForward(model.cut_to(computed), computed) if computed else None
    return _Step(model, names, forward)
