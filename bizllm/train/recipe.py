"""The training file: what it may say. Read and checked as a whole by `bizllm.jobs.training_file`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from bizllm.models.saved import Inputs, Pooling
from bizllm.prices import Prices
from bizllm.receivers import Receiver
from bizllm.tables.settings import Closed, SourceSettings
from bizllm.tables.store_settings import StorageSettings
from bizllm.train.augment import AugmentSettings

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Columns = tuple[str, ...]
MOST_TEACHERS = 4


class TableSettings(Closed):
    """One labelled table. Columns that it does not name are those of `data.train`."""

    path: str = Field(description="A Parquet file or folder: local, s3://, gs://, abfs://.")
    text: str | None = Field(default=None, description="The column that the model reads; required in `train`.")
    pair: str | None = Field(
        default=None, description="A second text: of sentence pairs, or the matching text of an embedding's anchor."
    )
    label: str | None = Field(
        default=None,
        description="The answer: a class, a list of classes, a number or a list of them, a tag for each token, a text.",
    )
    slices: list[str] = Field(default=[], description="Columns by which scores are told separately.")
    filter: str | None = Field(default=None, description="Keep the rows for which this SQL condition holds.")
    select: str | None = Field(default=None, description="A row-wise SQL select list, as of a job's source.")

    def source(self) -> SourceSettings:
        """The same rows as a source."""
        return SourceSettings(path=self.path, filter=self.filter, select=self.select)


class TrainSettings(TableSettings):
    """The rows to learn from."""

    text: str = Field(description="The column that the model reads.")


class ValidationSettings(Closed):
    """What decides when to stop and which checkpoint is kept: a share of train, or a table of its own."""

    split: Annotated[float, Field(gt=0.0, lt=0.9)] | None = Field(
        default=None, description="This share of train; 0.1 where no table is named."
    )
    seed: int = Field(default=1, description="Which rows the share takes.")
    path: str | None = Field(default=None, description="A table of its own instead.")
    text: str | None = Field(default=None, description="Of that table; by default as in train, like the next two.")
    pair: str | None = Field(default=None, description="Of that table.")
    label: str | None = Field(default=None, description="Of that table.")
    filter: str | None = Field(default=None, description="Of that table.")
    select: str | None = Field(default=None, description="Of that table.")

    @model_validator(mode="after")
    def _one_way(self) -> ValidationSettings:
        if self.split is not None and self.path is not None:
            raise ValueError("expected either `split` or `path`")
        return self

    def table(self) -> TableSettings | None:
        """The table of its own, if there is one."""
        if self.path is None:
            return None
        return TableSettings(**self.model_dump(exclude={"split", "seed"}))


class DataSettings(Closed):
    """Where the rows are."""

    train: TrainSettings = Field(description="The rows to learn from.")
    validation: ValidationSettings = Field(
        default=ValidationSettings(), description="What decides when to stop and which weights are kept."
    )
    test: TableSettings | None = Field(
        default=None, description="Rows that decide about promotion; never looked at while training."
    )
    drop_overlap: Literal["exact", "near", "none"] = Field(
        default="exact",
        description="Rows of train that validation or test hold too are left out: equal texts, or near.",
    )


class MethodSettings(Closed):
    """Which parameters are trained."""

    kind: Literal["full", "lora", "adalora", "adapter", "prompt", "prefix", "head"] = Field(
        default="full",
        description="All; low-rank updates; those with a rank budget; scaling vectors (IA3); virtual tokens before the "
        "text; virtual keys and values in every layer; the head alone.",
    )
    rank: PositiveInt = Field(default=8, description="Rank of lora, and the average final rank of adalora.")
    alpha: PositiveFloat | None = Field(default=None, description="Scale of lora; twice the rank by default.")
    dropout: Share = Field(default=0.05, description="Dropout of lora's inputs.")
    targets: list[str] | None = Field(default=None, description="Names of the modules; by default all linear ones.")
    tokens: PositiveInt = Field(default=20, description="Virtual tokens of prompt and prefix.")

    @property
    def virtual(self) -> int:
        """How many virtual tokens stand before a text."""
        return self.tokens if self.kind in ("prompt", "prefix") else 0


class OptimSettings(Closed):
    """How the parameters move."""

    lr: PositiveFloat = Field(default=2e-5, description="Learning rate of the base model.")
    head_lr: PositiveFloat | None = Field(default=None, description="Of the head; ten times `lr` by default.")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="Each layer further from the head learns by this factor slower."
    )
    epochs: PositiveFloat = Field(default=3.0, description="Passes over train.")
    batch: PositiveInt = Field(default=32, description="Rows of one optimizer step, over all workers.")
    micro_batch: PositiveInt | None = Field(
        default=None, description="Rows that a worker computes at once; derived from the batch."
    )
    schedule: Literal["linear", "cosine", "constant", "reduce_on_plateau"] = Field(
        default="linear", description="How the learning rate goes on after it has risen."
    )
    warmup: Share = Field(default=0.1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(default=0.01, ge=0.0, description="Of all but biases and norms.")
    label_smoothing: Share = Field(default=0.0, description="Share of the answer that all classes have alike.")
    clip: PositiveFloat | None = Field(default=1.0, description="Largest norm of a step's gradient.")
    dropout: Share | None = Field(default=None, description="Of the whole model; by default as the base has it.")
    r_drop: Annotated[float, Field(ge=0.0)] = Field(
        default=0.0, description="Weight of the divergence between two passes with different dropout."
    )
    class_weights: Literal["none", "balanced"] | dict[str, PositiveFloat] = Field(
        default="none", description="balanced: by inverse frequency."
    )
    patience: PositiveInt = Field(
        default=1, description="reduce_on_plateau: validations without a gain before lr falls."
    )
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(default=0.5, description="reduce_on_plateau: how far.")
    gradient_checkpointing: bool = Field(default=False, description="Compute activations again to save memory.")


class StopSettings(Closed):
    """When to stop early, and which checkpoint is the best."""

    metric: str | None = Field(default=None, description="Of validation; by default the objective's own.")
    patience: PositiveInt | None = Field(default=None, description="Validations without a gain; never by default.")
    every: PositiveInt | None = Field(default=None, description="Steps between validations; an epoch by default.")


class ZeroSettings(Closed):
    """How state is spread over workers (Rajbhandari et al. 2020) and in which numbers is computed."""

    stage: Literal[0, 1, 2, 3] = Field(
        default=1, description="Sharded: nothing; optimizer state; and gradients; and parameters."
    )
    offload: Literal["none", "cpu", "nvme"] = Field(default="none", description="Where optimizer state is kept.")
    nvme_path: str | None = Field(default=None, description="A folder on a local NVMe disk, of `offload: nvme`.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 where the device multiplies it, else fp32."
    )


class PromoteSettings(Closed):
    """When the model takes the place of the one in use."""

    alias: str = Field(default="champion", description="What the model in use is called.")
    metric: str | None = Field(default=None, description="Of test; by default the objective's own.")
    min_gain: float = Field(default=0.0, description="The gain must be larger than this.")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(
        default=0.95, description="Of the paired bootstrap over the test rows."
    )


class ContinualSettings(Closed):
    """Against forgetting, where `base` is a model that was fine-tuned before."""

    path: str | None = Field(
        default=None, description="Rows of the earlier training, in train's columns: of replay and ewc."
    )
    replay: Share = Field(default=0.0, description="Earlier rows among the new ones, as a share of all.")
    ewc: Annotated[float, Field(ge=0.0)] = Field(
        default=0.0, description="Weight of elastic weight consolidation (Kirkpatrick et al. 2017)."
    )
    l2_sp: Annotated[float, Field(ge=0.0)] = Field(
        default=0.0, description="Weight of the distance to where training began (Li et al. 2018)."
    )
    distill: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.0, description="Share of the loss that asks for the earlier model's answers (Li & Hoiem 2016)."
    )
    test: str | None = Field(
        default=None,
        description="Test rows of the earlier training, in train's columns: both models are scored on them too.",
    )
    naive: bool = Field(
        default=False, description="Train once more without all that, and show both: twice the time. Needs `test`."
    )


class UnlabelledSettings(Closed):
    """Rows without a label."""

    path: str = Field(description="A Parquet file or folder with train's text columns.")
    filter: str | None = Field(default=None, description="Keep the rows for which this SQL condition holds.")
    select: str | None = Field(default=None, description="A row-wise SQL select list, as of a job's source.")


class PseudoLabelSettings(UnlabelledSettings):
    """Unlabelled rows that are learned too, with the labels of labelled ones that are near them."""

    teachers: list[str] = Field(
        default=[],
        max_length=MOST_TEACHERS,
        description="Models that tell which texts are near; by default the base. A classifier of these labels also "
        "says what it takes them for.",
    )
    rows: PositiveInt = Field(default=20_000, description="At most so many of them, drawn by chance.")
    label_names: bool = Field(default=False, description="Labels are words: each is an example of its class.")


class PruneSettings(Closed):
    """What of the base is left out before it learns. The base is a model that was fine-tuned for the same objective."""

    layers: PositiveInt | None = Field(
        default=None, description="So many layers stay, at equal distances; all by default."
    )
    feed_forward: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="The share of each layer's feed-forward units that stays: those that do most."
    )

    @model_validator(mode="after")
    def _less(self) -> PruneSettings:
        if self.layers is None and self.feed_forward == 1.0:
            raise ValueError("expected `layers` or `feed_forward` below 1: nothing would be left out")
        return self


class DistillSettings(Closed):
    """Learn the answers of a teacher (Hinton et al. 2015), and its vectors (Romero et al. 2015)."""

    teacher: str = Field(description="A model that was fine-tuned for the same objective and classes.")
    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="Of the loss; the rest asks for the labels. 1: labels are not looked at."
    )
    temperature: PositiveFloat = Field(
        default=2.0, description="The logits of both are divided by it: above 1 what is unlikely counts more."
    )
    vectors: float | None = Field(
        default=None,
        ge=0.0,
        description="Weight of the distance between both models' pooled vectors; 1 where they are of one length.",
    )


class ProposeSettings(UnlabelledSettings):
    """Unlabelled rows, of which those most worth labelling next are told."""

    rows: PositiveInt = Field(default=100, description="How many to propose.")


Objectives = Literal[
    "classification",
    "multi_label",
    "pair",
    "regression",
    "quantile",
    "token_classification",
    "embedding",
    "causal_lm",
    "seq2seq",
    "masked_lm",
]

# The source document's recipes, as they stand: kept to be measured beside ours.
RECIPES: dict[str, dict[str, Any]] = {
    "document-bert": {
        "optim": {"lr": 1e-3, "head_lr": 1e-3, "epochs": 5, "schedule": "constant", "warmup": 0.0, "clip": None},
        "length_grouped": False,
    },
    "document-gpt": {
        "optim": {"lr": 2e-3, "head_lr": 2e-3, "epochs": 10, "schedule": "constant", "warmup": 0.0, "clip": None},
        "length_grouped": False,
    },
}


class Recipe(Closed):
    """One YAML file: a base model, labelled rows, and how the one learns from the other."""

    name: str = Field(description="Names the model in the registry.")
    base: str = Field(description="The model to start from: builtin:, hf:, path:, registry:.")
    objective: Objectives = Field(description="What the model learns to answer.")
    data: DataSettings
    recipe: Literal["document-bert", "document-gpt"] | None = Field(
        default=None, description="Defaults for what the file leaves open."
    )
    inputs: Inputs | None = Field(default=None, description="numbers: the text column is a list of past values.")
    pooling: Pooling | Literal["auto"] = Field(
        default="auto", description="How a row becomes one vector; auto: as the base was trained."
    )
    max_tokens: PositiveInt | None = Field(default=None, description="Longer rows are cut; counted and reported.")
    max_new_tokens: PositiveInt = Field(default=128, description="Of answers that a language model writes in tests.")
    levels: list[Annotated[float, Field(gt=0.0, lt=1.0)]] = Field(
        default=[0.1, 0.5, 0.9], min_length=1, description="Of the quantile objective."
    )
    packing: bool = Field(default=True, description="causal_lm: several short rows in one sequence.")
    length_grouped: bool = Field(default=True, description="Batches of about equal lengths.")
    method: MethodSettings = Field(default=MethodSettings(), description="Which parameters are trained.")
    optim: OptimSettings = Field(default=OptimSettings(), description="How the parameters move.")
    stop: StopSettings = Field(default=StopSettings(), description="When to stop, and which weights are the best.")
    zero: ZeroSettings = Field(default=ZeroSettings(), description="How state is spread over workers.")
    augment: AugmentSettings | None = Field(default=None, description="Changed copies of train's rows.")
    pseudo_labels: PseudoLabelSettings | None = Field(
        default=None, description="Learn unlabelled rows too, with labels that near ones have."
    )
    continual: ContinualSettings = Field(default=ContinualSettings(), description="Against forgetting.")
    prune: PruneSettings | None = Field(default=None, description="Begin with a part of the base.")
    distill: DistillSettings | None = Field(default=None, description="Learn what a teacher answers.")
    review: bool = Field(
        default=False, description="Write the rows of train whose label is likely wrong to `review.parquet`."
    )
    propose: ProposeSettings | None = Field(
        default=None, description="Write the rows most worth labelling next to `propose.parquet`."
    )
    workers: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        default=1, description="Processes, one a GPU where there are any; [least, most] takes what the cluster has."
    )
    wait_for_room_s: PositiveFloat = Field(
        default=900.0, description="For as many workers as it needs, at the start and after a loss; then it fails."
    )
    grow_after_s: PositiveFloat = Field(
        default=60.0,
        description="[least, most]: train at least so long before more workers are taken, at a checkpoint.",
    )
    promote: PromoteSettings | None = Field(default=PromoteSettings(), description="null: never.")
    track: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(default=[], description="Where figures go, too.")
    output: str = Field(default="../out/models", description="Folder of runs and models.")
    registry: str | None = Field(default=None, description="MLflow registry of models: a URL or a SQLite file.")
    prices: Prices = Field(
        default=Prices(), description="What an hour of a CPU and of a GPU costs, for `plan` on a cluster."
    )
    storage: StorageSettings | None = Field(default=None, description="How object stores are reached, as in a job.")
    notify: list[Receiver] = Field(default=[], description="Webhooks that are told of a training's end, as in a job.")
    license: str | None = Field(default=None, description="Of the new model, for its card.")
    seed: int = Field(default=1, description="Of the order of rows, dropout, a fresh head, augmentation.")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("recipe"), str):
            return _over(RECIPES.get(values["recipe"], {}), values)
        return values

    @field_validator("workers")
    @classmethod
    def _range(cls, workers: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(workers, tuple) and workers[0] > workers[1]:
            raise ValueError("expected [least, most]")
        return workers

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: list[float]) -> list[float]:
        if len(set(levels)) < len(levels):
            raise ValueError("expected every level once")
        return sorted(levels)

    @property
    def most_workers(self) -> int:
        """Workers where the cluster has room for all of them."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def least_workers(self) -> int:
        """Workers without which it does not start."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above`, and what it leaves open from `below`."""
    merged = {**below, **above}
    for key, value in below.items():
        if isinstance(value, dict) and isinstance(above.get(key), dict):
            merged[key] = _over(value, above[key])
    return merged
