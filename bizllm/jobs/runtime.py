"""The job's `runtime:` section."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

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
    cpu_hour_price: float | None = Field(
        default=None, ge=0, description="What an hour of one CPU costs, for the cost in `plan` and `runs`."
    )
    lock_lease_s: PositiveFloat = Field(
        default=300, description="Seconds after which the lock of a run that died may be taken over."
    )
