"""A training step on 1 to many devices, of which there need be none."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from multimix.plan.rates import Rates
from multimix.plan.step import Setup, StepCost, step_cost

Scaling = Literal["strong", "weak"]
_ENCODER = ("encoder forward", "encoder backward", "classifier", "teacher")
_INTERPOLATION = ("draw", "interpolation")


@dataclass(frozen=True)
class Row:
    """A step on so many devices."""

    devices: int
    batch: int
    """Images of each device."""
    cost: StepCost
    efficiency: float
    """Images a second of each device, over those of a device alone."""

    @property
    def images_a_second(self) -> float:
        """Return how many images all devices train on in a second."""
        return self.devices * self.batch / self.cost.time

    @property
    def encoder(self) -> float:
        """Return the share of time in the network, the teacher's included."""
        return self._share(_ENCODER)

    @property
    def interpolation(self) -> float:
        """Return the share of time in drawing and interpolating tuples."""
        return self._share(_INTERPOLATION)

    @property
    def communication(self) -> float:
        """Return the share of time in which devices wait for each other's numbers."""
        return self._share(("communication",))

    def _share(self, parts: Iterable[str]) -> float:
        return sum(self.cost.seconds.get(part, 0.0) for part in parts) / self.cost.time


def simulate(setup: Setup, rates: Rates, devices: Iterable[int], scaling: Scaling) -> list[Row]:
    """Return a row for each number of devices.

    Args:
        setup: The step of a device alone; its batch is that of all devices together in strong scaling, and that of each
            in weak scaling.
        rates: What devices can do.
        devices: How many there are.
        scaling: ``strong`` shares the mini-batch out, and leaves out numbers of devices that it cannot be shared
            between; ``weak`` gives every device as many images as one alone has.
    """
    alone = step_cost(replace(setup, devices=1), rates)
    whole = setup.subject.batch
    rows = []
    for count in devices:
        if scaling == "strong" and whole % count:
            continue
        batch = whole // count if scaling == "strong" else whole
        cost = step_cost(replace(setup, devices=count, subject=replace(setup.subject, batch=batch)), rates)
        rows.append(Row(count, batch, cost, batch * alone.time / (cost.time * whole)))
    return rows
