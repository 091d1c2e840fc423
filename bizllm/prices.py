"""What an hour of a CPU or of a GPU costs, as a job says it, and what work costs by that. Must import in no time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, NonNegativeFloat

from bizllm.tables.settings import Closed

Kind = Literal["on_demand", "spot"]
KINDS: tuple[Kind, ...] = ("on_demand", "spot")


class HourlyPrices(Closed):
    """Of one way to pay for machines. A machine's price is given to its GPUs where it has any, else to its CPUs."""

    cpu_hour: NonNegativeFloat | None = Field(
        default=None, description="What an hour of one CPU costs: the machine's price by its CPUs."
    )
    gpu_hour: dict[str, NonNegativeFloat] = Field(
        default={},
        description="What an hour of one GPU costs, by accelerator type as Ray names it: the machine's price by its "
        "GPUs, its CPUs and memory being part of it.",
    )


class Prices(Closed):
    """What machines cost by the hour, in any one currency."""

    on_demand: HourlyPrices = Field(default=HourlyPrices(), description="Of machines that stay.")
    spot: HourlyPrices = Field(default=HourlyPrices(), description="Of machines that may be taken away.")

    def of(self, kind: Kind) -> HourlyPrices:
        """The prices of one way to pay."""
        return self.spot if kind == "spot" else self.on_demand


@dataclass(frozen=True)
class Held:
    """What work held: hours of CPUs, and of GPUs by accelerator type ("" where it is not known)."""

    cpu_hours: float = 0.0
    gpu_hours: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Held) -> Held:
        names = {**self.gpu_hours, **other.gpu_hours}
        gpus = {name: self.gpu_hours.get(name, 0.0) + other.gpu_hours.get(name, 0.0) for name in names}
        return Held(self.cpu_hours + other.cpu_hours, gpus)

    def cost(self, cpus: HourlyPrices, gpus: HourlyPrices) -> float | None:
        """By these prices of CPUs and of GPUs; None where nothing has a price, or part of it has none."""
        parts = [(self.cpu_hours, cpus.cpu_hour)]
        parts += [(hours, gpus.gpu_hour.get(name)) for name, hours in self.gpu_hours.items()]
        used = [(hours, price) for hours, price in parts if hours]
        if not used:
            return 0.0 if cpus.cpu_hour is not None or gpus.gpu_hour else None
        if any(price is None for _, price in used):
            return None
        return sum(hours * (price or 0.0) for hours, price in used)
