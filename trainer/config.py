"""Settings of a training run: one frozen model each for `run` and `sft`. How they are read: trainer.settings."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UserError
from pipeline.rewards import RewardRule
from trainer.advantage import Mode
from trainer.loss import CLIP_HIGH, CLIP_LOW, Level, Ratio

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Place = Annotated[str, BeforeValidator(lambda place: str(place) if isinstance(place, Path) else place)]

KEPT = 2
"""Checkpoints that stay on disk when only the steps between them are given."""


class Settings(BaseModel):
    """What `run` and `sft` share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    store: Place = "strive-store"
    """The store: a folder, or a prefix of an object store such as s3://bucket/prefix."""
    dataset: str = Field("default", min_length=1)
    """Name of the curated dataset to train on."""
    tag: str | None = None
    """Tagged version of the curated dataset; its newest version when absent."""
    allow_eval: bool = False
    """Train although samples come from an evaluation split (val, test and their like)."""
    policy: str = Field(min_length=1)
    """The policy to start from: a folder in transformers' layout, or a hub id."""
    out: Path
    """Folder for checkpoints, metrics and the resolved settings."""
    steps: Positive = 100
    """Updates in all."""
    lr: Annotated[float, Field(gt=0)] = 1e-6
    """Learning rate after warm-up; constant from there on."""
    adamw: tuple[Beta, Beta, Annotated[float, Field(ge=0)]] = (0.9, 0.99, 0.0)
    """Of AdamW: the decay rates of its two moments, and its decoupled weight decay."""
    warmup: Count = 0
    """Steps over which the learning rate rises linearly from 0."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm when it is larger."""
    micro_tokens: Positive = 16384
    """Tokens, padding included, of a packed micro-batch: memory goes by this, results do not."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass instead of keeping its inner values: less memory, more time, the
    same results."""
    freeze_vision: bool = True
    """Keep the vision tower as it is."""
    cache_vision: Path | None = None
    """Folder where the features of a frozen vision tower are kept, so that a view is encoded once in all steps, epochs
    and runs. Features of another tower are refused."""
    lora_rank: Count = 0
    """Rank of LoRA matrices beside the linear layers of the language model (and of a vision tower that is not frozen);
    they learn, the policy itself stays. 0 trains all weights. LoRA wants an lr some 10 to 100 times as high."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic: with bf16 matrix products are in bfloat16, weights and optimizer stay in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU when there is one."""
    seed: Count = 0
    """Seed of the order of the data and of every draw."""
    checkpoint_every: tuple[Count, Positive] = (50, KEPT)
    """Steps between checkpoints, and how many of the newest stay on disk; steps alone keep 2. One is always written at
    the end; 0: at the end only."""
    trackers: tuple[str, ...] = ()
    """Where metrics go beside metrics.jsonl: tensorboard, trackio, wandb. One that fails is dropped."""
    groups: Positive = 8
    """Samples of a step."""

    @field_validator("checkpoint_every", mode="before")
    @classmethod
    def _steps_alone(cls, value: Any) -> Any:
        return (value, KEPT) if isinstance(value, int | str) else value

    @model_validator(mode="after")
    def _cached_tower_stays(self) -> Self:
        if self.cache_vision is not None and not self.freeze_vision:
            raise ValueError(
                "cache_vision with freeze_vision=false: features of a tower that learns are old after a step; "
                "drop one of both"
            )
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup={self.warmup} leaves none of steps={self.steps}: lower warmup or raise steps")
        return self


class RunConfig(Settings):
    """Settings of `strive-train run`: GRPO with one view a sample, STRIVE with several."""

    out: Path = Path("runs") / "strive"
    """Folder for checkpoints, metrics and the resolved settings."""
    variants: Positive = 4
    """M, views of a sample: its pool is M x responses. 1 is GRPO."""
    view: Literal["anchor", "importance"] = "anchor"
    """The view of variants = 1: uniform sampling, or the first importance-aware one. More variants take all views."""
    responses: Positive = 2
    """G, responses for each view."""
    groups: Positive = 8
    """Samples of a step; a step draws groups x variants x responses rollouts."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the rollouts, and of the log-probabilities that are trained."""
    truncate: tuple[Annotated[float, Field(gt=0, le=1)], Count] = (1.0, 0)
    """top-p and top-k: draw from the most probable tokens that together have this probability, and from so many of them
    (0: any number). What is trained is not cut."""
    max_tokens: Positive = 1024
    """Longest response; it is cut there."""
    reward: str = ""
    """How reward parts join, such as "number=mra,format=0.1": weights accuracy=1, iou=1, format=0 and forms
    number=exact|mra, text=rouge|exact, span=iou|boundary. What is left out has the value that stands first here."""
    rollout_batch: Positive = 64
    """Responses that are drawn side by side: memory goes by this, results do not."""
    advantage: Mode = "joint"
    """What a reward is compared with: joint, the whole pool (STRIVE); per-view, its own view; hierarchical, its own
    view, plus its view with the other views. With one view all are GRPO. joint is STRIVE's choice."""
    scale: Literal["std", "none", "task-ema"] = "std"
    """What differences are divided by: the deviation of the pool (std, as GRPO does), nothing (none, as Dr. GRPO), or
    the usual deviation of the task's pools (task-ema, as OneThinker, for mixes of tasks)."""
    loss: Level = "token"
    """What weighs the same: token, every token (DAPO: no reward for length); sequence, every response (GRPO); constant,
    every token with a divisor that never changes, responses x max_tokens (Dr. GRPO)."""
    ratio: Ratio = "token"
    """Probability ratio to clip: of each token, or of the whole response (sequence, GSPO: with loss=sequence and a much
    smaller clip). On the first update of a rollout all ratios are 1, so it matters little here."""
    clip: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0)]] = (CLIP_LOW, CLIP_HIGH)
    """How far the probability ratio may fall below and rise above 1; the upper bound is the wider one of DAPO."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the penalty for leaving the policy that the run started from (k3, per token). 0, as in DAPO and Dr.
    GRPO, needs no second model; above 0 a frozen copy is held (with LoRA: none, the adapters are switched off)."""
    train_subset: Count = 0
    """Rollouts of a pool to train on, those of greatest variance (PODS). 0: all of them."""
    update_on: Literal["variant", "anchor"] = "variant"
    """The view that the update sees with a response: the one it was drawn on, or the anchor (NoisyRollout)."""
    two_wave: bool = False
    """Draw half of a pool on the anchor first, and the other half on the variants only where the first is dead."""
    refill: Count = 0
    """How often a dead pool may be replaced by the next sample of the stream (DAPO's dynamic sampling, bounded)."""

    @model_validator(mode="after")
    def _reward_reads(self) -> Self:
        RewardRule.parse(self.reward)
        return self

    @model_validator(mode="after")
    def _pool_can_differ(self) -> Self:
        if self.variants * self.responses < 2:
            raise ValueError(
                "variants=1 with responses=1 makes pools of one rollout, whose advantage is always 0: "
                "set responses to 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        pool = self.variants * self.responses
        one_view = self.variants == 1
        checks = [
            (
                self.train_subset == 1 or self.train_subset > pool,
                f"train_subset={self.train_subset} of pools of {pool} rollouts: set it to 0 (all) or to 2..{pool}",
            ),
            (
                self.advantage != "joint" and self.responses == 1,
                f"advantage={self.advantage} compares the responses of one view, and responses=1: set it to 2 or more",
            ),
            (
                self.advantage == "hierarchical" and self.scale != "std",
                f"advantage=hierarchical with scale={self.scale} is advantage=joint: set scale=std, or advantage=joint",
            ),
            (
                self.update_on == "anchor" and one_view,
                "update_on=anchor with variants=1 has no view but its own: set variants to 2 or more",
            ),
            (
                self.two_wave and (one_view or pool < 4),
                "two_wave draws on the anchor, then on variants: it needs variants of 2 or more and pools of 4 "
                f"rollouts or more, got {self.variants} x {self.responses}",
            ),
        ]
        for wrong, message in checks:
            if wrong:
                raise ValueError(message)
        return self


class SftConfig(Settings):
    """Settings of `strive-train sft`: imitate the right answers of a curated dataset on its anchor views."""

    out: Path = Path("runs") / "sft"
    """Folder for the trained policy, metrics and the resolved settings."""
    lr: Annotated[float, Field(gt=0)] = 1e-5
    """Learning rate after warm-up; constant from there on."""


Config = TypeVar("Config", bound=Settings)

MAY_CHANGE = frozenset(
    {
        *("store", "out", "policy", "device"),
        *("steps", "checkpoint_every", "trackers", "micro_tokens", "rollout_batch"),
        *("gradient_checkpointing", "cache_vision"),
    }
)
"""What a resumed run may change: where things lie, how long and in what portions it works, not what it computes."""


def write(config: BaseModel, file: Path) -> None:
    """Write the resolved settings as JSON, aside and renamed, so that a file of this name is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    aside.replace(file)


def check_resume(config: Config, file: Path) -> None:
    """Refuse to resume with settings that would compute something else than the run in `file` did.

    Raises:
        UserError: names the settings that differ (all but MAY_CHANGE have to be equal), or says that `file` is not of
            this kind.
    """
    try:
        before = type(config).model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise UserError(
            str(file), "does not hold the settings of the run to resume", "start in another --out"
        ) from error
    changed = [
        f"{name}: {getattr(before, name)} -> {getattr(config, name)}"
        for name in type(config).model_fields
        if name not in MAY_CHANGE and getattr(before, name) != getattr(config, name)
    ]
    if changed:
        raise UserError(
            f"--resume with {', '.join(changed)}",
            "a resumed run keeps its settings",
            "undo that, or choose another --out",
        )


def describe(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Every setting with its default (None when it has to be given) and its meaning, in order, JSON-like."""
    schema = kind.model_json_schema()
    return {
        name: {
            "default": part.get("default"),
            "required": name in schema.get("required", []),
            "meaning": part["description"],
        }
        for name, part in schema["properties"].items()
    }
