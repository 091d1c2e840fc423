"""What each text is about: topics that the texts show, named by their words, the same from night to night."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt, model_validator

from bizllm.methods import topics
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _text_clusters, _texts
from bizllm.tasks._texts import Faults, TextSettings
from bizllm.tasks.base import Combined, Groups, Models, Outcome, Reject, Shape, Task

Number = Annotated[int, Field(ge=1, le=300)]


class TopicsSettings(TextSettings):
    """What `task: topics` takes."""

    model: str | None = Field(
        default=None,
        description="A text encoder that reads the texts' language. Without one, words decide; of Chinese, runs of "
        "characters.",
    )
    k: Literal["auto"] | Number = Field(
        default="auto", description="Number of topics; auto: the fewest with nine tenths of the best silhouette."
    )
    k_range: tuple[Number, Number] = Field(default=(5, 60), description="Fewest and most topics of `auto`.")
    outliers: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        default=0.05,
        description="Share of the first night's texts, the furthest from every topic, that belong to none. How far "
        "that is then stays.",
    )
    other: str = Field(default="other", min_length=1, description="What the topic of such texts is called.")
    min_texts: PositiveInt = Field(default=30, description="With fewer, last night's topics stay as they are.")

    @model_validator(mode="after")
    def _range(self) -> TopicsSettings:
        if self.k != "auto" and "k_range" in self.model_fields_set:
            raise ValueError("expected either `k` or `k_range`")
        if self.k_range[0] > self.k_range[1]:
            raise ValueError("expected `k_range` as [fewest, most]")
        return self


_COLUMNS = pa.schema(
    [
        ("topic", pa.string()),
        ("topic_id", pa.int32()),
        ("words", pa.list_(pa.string())),
        ("probability", pa.float64()),
        ("previous_topic", pa.string()),
    ]
)


class Topics(Task):
    """Clusters of texts (`bizllm.methods.topics`): fitted on all texts or a sample of them, then applied to each."""

    name = "topics"
    version = 1
    Settings = TopicsSettings
    summary = "What each text is about: topics found in the texts, named by their words, the same from night to night."
    takes = "A text in each row of a source with a key."
    example = "ticket_topics: {task: topics, input: tickets, text: body, model: encoder}"
    shapes = ("table",)
    writes: ClassVar[dict[str, str]] = {
        "topic": "string: its most telling words; `other` where the text is far from every topic",
        "topic_id": "int: the same from night to night, never used again; 0 for `other`",
        "words": "list of string: the words that set the topic apart tonight, the most telling first; none for `other`",
        "probability": "double in [0, 1]: that the nearest topic would be the same, had it been learned of other texts",
        "previous_topic": "string: the topic on the newest earlier night; null for new rows",
    }
    exhibits = "categories"
    category_column = "topic"
    prior_columns: ClassVar[tuple[str, ...]] = ("topic",)
    settings: TopicsSettings

    _encoder: Any = None

    @property
    def shape(self) -> Shape:
        return "table"

    def reads(self) -> list[str]:
        return list(dict.fromkeys([*self.source.key, self.settings.text]))

    def group_by(self) -> list[str]:
        return list(self.source.key)

    def check(self) -> Faults:
        faults = _texts.column_faults(self.source.schema, {"text": self.settings.text})
        if not self.source.key:
            faults.append(("input", self.settings.input, "expected a source with a key", "`key: auto` adds one"))
        elif self.settings.text in self.source.key:
            faults.append(("text", self.settings.text, "expected another column than the key", ""))
        return faults

    def columns(self) -> pa.Schema:
        return _COLUMNS

    def rules(self) -> dict[str, str]:
        return {
            "the topic has a name": "trim(topic) <> ''",
            "only texts of no topic have the id 0": "topic_id >= 0 and (topic_id > 0 or len(words) = 0)",
            "the probability lies in [0, 1]": "probability between 0 and 1",
        }

    def models(self) -> dict[str, str]:
        return {"encoder": self.settings.model} if self.settings.model else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> Faults:
        return _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))

    def caveat(self) -> str:
        if self.settings.k == "auto":
            return (
                "Nobody knows the right number of topics: of 77 intents 39 topics were made. Set `k` where you"
                " know better."
            )
        return ""

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        if self.settings.model:
            return _texts.model_cost(rows, text_bytes)
        return 0, rows * 1e-4 + text_bytes * 2e-6

    def open(self, models: Models) -> None:
        # What is fitted has its vectors already.
        if self.settings.model is not None and self.fitted is None:
            self._encoder = models.encoder(self.settings.model)

    # -- the work -------------------------------------------------------------------------------------------------

    def combine(self, rows: pa.Table) -> Combined:
        return _text_clusters.combine(rows, self.group_by(), self.settings.text, self.settings.max_input_chars, 2)

    def features(self, groups: Groups) -> Outcome:
        found = _text_clusters.features(groups, self.settings.text, self._encoder, 2, "topic")
        table = found.columns
        single = table["texts"].to_numpy() == 1
        twice = [Reject(int(i), "duplicate_key", "two rows have this key") for i in found.subject[~single]]
        return Outcome(found.subject[single], table.filter(pa.array(single)), [*found.rejects, *twice], found.tokens)

    def fit(self, features: pa.Table, previous: dict[str, Any] | None) -> dict[str, Any]:
        s = self.settings
        k = s.k_range if s.k == "auto" else s.k
        return topics.fit(*_text_clusters.points(features), k, s.outliers, s.min_texts, previous)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self.fitted is not None, "the engine fits before it answers"
        found = topics.apply(self.fitted, *_text_clusters.points(batch))
        known = [*self.fitted["topics"], {"name": self.settings.other, "id": 0, "words": []}]  # -1 is the last
        told = [known[i] for i in found.topic]
        columns = pa.table(
            {
                "topic": [topic["name"] for topic in told],
                "topic_id": pa.array([topic["id"] for topic in told], pa.int32()),
                "words": pa.array([topic["words"] for topic in told], pa.list_(pa.string())),
                "probability": found.probability,
                "previous_topic": batch["previous_topic"],
            },
            schema=_COLUMNS,
        )
        return Outcome(np.arange(batch.num_rows), columns)


TASK = Topics
