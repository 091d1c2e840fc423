"""What `segment` takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from bizllm.methods import purchases
from bizllm.tables.settings import Closed
from bizllm.tasks._explain import Explained

_OF_PURCHASES = {"time", "amount", "order", "returned", "window_days", "features", "cluster_by", "rules", "explain"}
Clusters = Annotated[int, Field(ge=1, le=30)]
Name = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]


class Rule(Closed):
    """One rule-based segment."""

    name: Name = Field(description="What the segment is called.")
    when: str = Field(description="An SQL condition over the features, e.g. `recency_days <= 30 and money > 500`.")


class ExtraFeature(Closed):
    """A further feature, made of the lines of an entity."""

    column: str = Field(description="Where it comes from: a column of numbers, or any column with `agg: share`.")
    agg: purchases.Aggregate = Field(description="sum, mean, min, max; share: of lines whose value is `equals`.")
    equals: bool | int | str | None = Field(default=None, description="The value that `agg: share` counts, as text.")

    @model_validator(mode="after")
    def _share_of_what(self) -> ExtraFeature:
        if (self.agg == "share") != (self.equals is not None):
            raise ValueError("expected `equals` with `agg: share`, and only there")
        return self


class SegmentSettings(Explained):
    """What `task: segment` takes."""

    entity: str = Field(description="Column of the customer (or shop, or product) that is put into a segment.")
    time: str | None = Field(
        default=None,
        description="Date or timestamp of the line; needed without `text`. Timestamps with a timezone count in UTC.",
    )
    amount: str | None = Field(
        default=None, description="Money of the line, negative for a return; needed without `text`."
    )
    text: str | None = Field(
        default=None,
        description="Column of what the entity says, wants or needs: that makes the segments, not purchases.",
    )
    model: str | None = Field(
        default=None, description="With `text`: an encoder that reads its language. Without one, words decide."
    )
    max_texts: PositiveInt = Field(default=50, description="With `text`: a sample of so many of an entity's texts.")
    max_input_chars: PositiveInt = Field(default=200_000, description="Longer texts are rejected as too_long.")
    order: str | None = Field(default=None, description="Column that lines of one order share; without it, the day.")
    returned: str | None = Field(default=None, description="Boolean column: the line is a return, whatever its sign.")
    window_days: PositiveInt = Field(default=730, description="Days of history, the run date included.")
    features: dict[str, ExtraFeature] = Field(default={}, description="Further features, by name.")
    cluster_by: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Features that make the clusters; by default recency_days, frequency, money, return_share and "
        "all of `features`.",
    )
    k: Literal["auto"] | Clusters = Field(default="auto", description="Number of clusters; auto: the silhouette says.")
    k_range: tuple[Clusters, Clusters] = Field(default=(3, 8), description="Fewest and most clusters of `auto`.")
    min_entities: PositiveInt = Field(default=30, description="With fewer, last night's clusters stay as they are.")
    language: Literal["en", "zh"] = Field(default="en", description="Of the names of clusters.")
    rules: list[Rule] = Field(default=[], description="Segments by conditions instead of clusters; the first holds.")
    otherwise: Name = Field(default="other", alias="else", description="Segment of entities that no rule takes.")

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _one_way(self) -> SegmentSettings:
        if self.text is None:
            missing = [name for name in ("time", "amount") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"expected `{missing[0]}`, or `text` for segments by what customers say")
            if self.model is not None or "max_texts" in self.model_fields_set:
                raise ValueError("expected `text` beside `model` and `max_texts`")
        elif self.model_fields_set & _OF_PURCHASES:
            raise ValueError(f"expected none of {', '.join(sorted(_OF_PURCHASES))} beside `text`")
        if self.rules and {"k", "k_range", "cluster_by"} & self.model_fields_set:
            raise ValueError("expected either `rules` or clusters (`k`, `k_range`, `cluster_by`)")
        if self.otherwise != "other" and not self.rules:
            raise ValueError("expected `rules` beside `else`")
        if self.k_range[0] > self.k_range[1]:
            raise ValueError("expected `k_range` as [fewest, most]")
        return self
