"""The file of `bizllm compress`: unlabelled rows that pupils of a model learn from, and how small they are to be."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from bizllm.models.saved import ModelInfo
from bizllm.tables.settings import Closed
from bizllm.tables.store_settings import StorageSettings
from bizllm.train.recipe import (
    DataSettings,
    DistillSettings,
    OptimSettings,
    PruneSettings,
    Recipe,
    TableSettings,
    TrainSettings,
    UnlabelledSettings,
    ValidationSettings,
    ZeroSettings,
)


class RowsSettings(UnlabelledSettings):
    """Rows like those that the model reads at night; labels are not needed."""

    path: str = Field(description="A Parquet file or folder: local, s3://, gs://, abfs://.")
    text: str = Field(description="The column that the model reads.")
    pair: str | None = Field(default=None, description="The second text, of a model of pairs.")


class LabelledSettings(TableSettings):
    """Labelled rows, on which a pupil's score is held against its teacher's."""

    label: str = Field(description="The right answer.")


class CompressionData(Closed):
    """Where the rows are."""

    train: RowsSettings = Field(description="What pupils learn from: the teacher answers it.")
    test: LabelledSettings | None = Field(
        default=None, description="What scores are measured on; without it only agreement with the teacher is."
    )


class Compression(Closed):
    """One YAML file: how a fine-tuned model is made smaller."""

    name: str | None = Field(default=None, description="Names the pupils in the registry; by default as the teacher.")
    data: CompressionData
    rows: PositiveInt = Field(default=20_000, description="At most so many different texts of train, drawn by chance.")
    students: list[PruneSettings] = Field(
        default=[], description="The pupils, by what stays of the teacher; by default a half and a third of its layers."
    )
    max_loss: float = Field(default=0.01, ge=0.0, description="How much of the score a pupil may lose to be offered.")
    temperature: float = Field(default=2.0, gt=0.0, description="As in `distill` of a training file.")
    vectors: float | None = Field(default=None, ge=0.0, description="As in `distill` of a training file.")
    optim: OptimSettings = Field(
        default=OptimSettings(lr=1e-4, head_lr=1e-4, epochs=6), description="How the parameters move."
    )
    zero: ZeroSettings = Field(default=ZeroSettings(), description="How state is spread over workers.")
    workers: PositiveInt = Field(default=1, description="Processes, one a GPU where there are any.")
    output: str = Field(default="../out/models", description="Folder of runs and models.")
    registry: str | None = Field(default=None, description="MLflow registry of models: a URL or a SQLite file.")
    storage: StorageSettings | None = Field(default=None, description="How object stores are reached, as in a job.")
    seed: int = Field(default=1, description="Of the rows that are drawn, their order, and dropout.")

    def recipe(self, model: str, info: ModelInfo, prune: PruneSettings | None, rows: str) -> Recipe:
        """The training of a pupil. model: the teacher's URI. rows: of train with the teacher's labels, in columns
        `text`, `pair` and `label`."""
        train, test = self.data.train, self.data.test
        if test is not None:
            test = test.model_copy(update={"text": test.text or train.text, "pair": test.pair or train.pair})
        columns = {"text": "text", "pair": "pair" if train.pair else None, "label": "label"}
        alike = ("optim", "zero", "workers", "output", "registry", "storage", "seed")
        return Recipe(
            name=self.name or info.name,
            base=model,
            objective=info.objective,  # type: ignore[arg-type]  # a folder that says another was not written here
            data=DataSettings(
                train=TrainSettings(path=rows, **columns),  # type: ignore[arg-type]
                validation=ValidationSettings(split=0.1, seed=self.seed),
                test=test,
            ),
            max_tokens=info.max_tokens,
            prune=prune,
            distill=DistillSettings(teacher=model, temperature=self.temperature, vectors=self.vectors),
            promote=None,
            **{name: getattr(self, name) for name in alike},
        )
