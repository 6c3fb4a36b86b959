"""What an input decides: branches, rounds of loops. A plan of a model is valid for one choice."""

from __future__ import annotations

from dataclasses import dataclass

from palrp_onnx.model.branches import answers, has_decisions, questions, with_decisions
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward
from palrp_onnx.types import Feeds

#: Every decision, outer nodes before nested ones.
Taken = tuple[int, ...]


@dataclass(frozen=True)
class _Step:
    """A model with some decisions taken.

    Attributes:
        model: The model.
        names: Names of the values of its next decisions.
        forward: Computes them; ``None`` if all are inputs.
    """

    model: Model
    names: list[str]
    forward: RuntimeForward | None


class Branches:
    """Decides for every input which nodes of ``model`` run, and how many times.

    Only the nodes that decisions depend on are run; a model without decisions runs nothing.
    """

    def __init__(self, model: Model) -> None:
        self._steps: dict[Taken, _Step] = {(): _step(model)}

    def taken(self, feeds: Feeds) -> Taken:
        """All decisions for this input; empty if there are none.

        Raises:
            InputError: The values that decide cannot be computed for this input.
        """
        taken: Taken = ()
        while (step := self._steps[taken]).names:
            values = {**feeds, **(step.forward(feeds) if step.forward is not None else {})}
            choice = answers(values, step.names)
            longer = (*taken, *choice)
            if longer not in self._steps:
                self._steps[longer] = _step(with_decisions(step.model, choice))
            taken = longer
        return taken


def _step(model: Model) -> _Step:
    if not has_decisions(model):
        return _Step(model, [], None)
    asked, names = questions(model)
    fed = {signature.name for signature in model.inputs}
    computed = [name for name in dict.fromkeys(names) if name not in fed]
    forward = RuntimeForward(asked.cut_to(computed), computed) if computed else None
    return _Step(model, names, forward)
