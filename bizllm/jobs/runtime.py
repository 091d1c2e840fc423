"""The job's `runtime:` section."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from bizllm.infer.pools import Pool, Pools
from bizllm.prices import Held, HourlyPrices, Kind, Prices
from bizllm.tables.settings import Closed


class Runtime(Closed):
    """How much of the machine or cluster a run takes. No setting here changes a result."""

    num_cpus: PositiveInt | None = Field(default=None, description="CPUs of a local Ray; all of them by default.")
    object_store_mb: PositiveInt | None = Field(default=None, description="Object store of a local Ray, in MB.")
    workers: PositiveInt | None = Field(default=None, description="Model workers of a step; derived from the CPUs.")
    unit_rows: PositiveInt | None = Field(
        default=None, description="Most input rows of a unit, the grain of resume; derived from the input."
    )
    unit_mb: PositiveFloat = Field(default=64, description="Most input megabytes of a unit, as stored.")
    buckets: PositiveInt | None = Field(
        default=None, description="Hash buckets that the rows of group tasks are sorted into; derived from the input."
    )
    concurrent_steps: PositiveInt | None = Field(
        default=None, description="Independent steps that run at once; derived from the CPUs."
    )
    pools: Pools = Field(default=Pools(), description="Which nodes of a cluster stages run on.")
    wait_for_room_s: PositiveFloat = Field(
        default=900, description="Seconds that a stage waits for its first worker, before its step fails."
    )
    cpu_hour_price: float | None = Field(
        default=None, ge=0, description="Short for `prices: {on_demand: {cpu_hour: …}}`."
    )
    prices: Prices = Field(
        default=Prices(), description="What an hour of a CPU and of a GPU costs, for the cost in `plan` and `runs`."
    )
    lock_lease_s: PositiveFloat = Field(
        default=300, description="Seconds after which the lock of a run that died may be taken over."
    )

    @model_validator(mode="after")
    def _one_price(self) -> Runtime:
        if self.cpu_hour_price is not None and self.prices.on_demand.cpu_hour is not None:
            raise ValueError("expected either `cpu_hour_price` or `prices.on_demand.cpu_hour`: they are the same")
        return self

    def hourly(self, kind: Kind) -> HourlyPrices:
        """The prices of one way to pay."""
        prices = self.prices.of(kind)
        if kind == "spot" or self.cpu_hour_price is None:
            return prices
        return prices.model_copy(update={"cpu_hour": self.cpu_hour_price})

    def cost(self, held: Held, kind: Kind | None = None) -> float | None:
        """What work cost that held so much: as its pools pay, or all in one way. None where a price is missing."""
        pools = (self.pools.cpu or Pool(), self.pools.gpu or Pool())
        cpus, gpus = (self.hourly(kind or pool.capacity) for pool in pools)
        return held.cost(cpus, gpus)
