"""What a job says of its sources and its warehouse. Apart from the code that uses it: it must import in no time."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bizllm.tables.mask_settings import SourceMask


class Closed(BaseModel):
    """A part of the YAML that takes no unknown keys and never changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(Closed):
    """One input of a job. Read in this order: columns, rename, filter, mask, select."""

    path: str | None = Field(default=None, description="A Parquet file or folder: local, s3://, gs://, abfs://.")
    table: str | None = Field(default=None, description="An Iceberg table `namespace.name` in the warehouse's catalog.")
    key: list[str] | Literal["auto"] = Field(
        default="auto", description="Columns that identify a row; `auto` numbers the rows of each file."
    )
    partition: str | None = Field(
        default=None, description="The date partition: a folder level `name=YYYY-MM-DD`, or else a date column."
    )
    columns: list[str] | None = Field(default=None, description="Read these columns only.")
    rename: dict[str, str] = Field(default={}, description="Old name: new name.")
    filter: str | None = Field(default=None, description="Keep the rows for which this SQL condition holds.")
    mask: SourceMask | None = Field(
        default=None, description="Mask personal data in these columns, before a step or `select` sees them."
    )
    sensitive: bool = Field(
        default=False,
        description="Texts of steps that read it are shown in no report, and by `show` only with --reveal.",
    )
    select: str | None = Field(
        default=None, description="A row-wise SQL select list, e.g. `*, quantity * unit_price as amount`."
    )

    @model_validator(mode="after")
    def _one_place(self) -> SourceSettings:
        if (self.path is None) == (self.table is None):
            raise ValueError("expected either `path` or `table`")
        return self


class WarehouseSettings(Closed):
    """Where the tables go: an Iceberg catalog, and the folder that holds data files and the state of runs."""

    path: str = Field(description="Folder of data files and run state: local, s3://, gs://, abfs://.")
    catalog: Literal["sqlite", "sql", "rest", "glue"] = Field(
        default="sqlite", description="sqlite keeps catalog.db in `path`; sql and rest need `uri`."
    )
    uri: str | None = Field(default=None, description="Of a sql or rest catalog.")
    properties: dict[str, str] = Field(default={}, description="Further PyIceberg catalog properties.")
