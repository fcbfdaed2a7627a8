"""Settings of a training run: one frozen model each for `run` and `sft`; from TOML, the command line, or code."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import UserError
from pipeline.rewards import RewardRule
from trainer.loss import CLIP_HIGH, CLIP_LOW

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]

SHOW = "`strive-train config` lists every setting with its meaning"


class _Settings(BaseModel):
    """What `run` and `sft` share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    store: Path = Path("strive-store")
    """Folder of the store."""
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
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Decay rates of AdamW's two moments."""
    warmup: Count = 0
    """Steps over which the learning rate rises linearly from 0."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm when it is larger."""
    micro_tokens: Positive = 16384
    """Tokens, padding included, of a packed micro-batch: memory goes by this, results do not."""
    freeze_vision: bool = True
    """Keep the vision tower as it is."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic: with bf16 matrix products are in bfloat16, weights and optimizer stay in float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU when there is one."""
    seed: Count = 0
    """Seed of the order of the data and of every draw."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup={self.warmup} leaves none of steps={self.steps}: lower warmup or raise steps")
        return self


class RunConfig(_Settings):
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
    max_tokens: Positive = 1024
    """Longest response; it is cut there."""
    reward: str = ""
    """How reward parts join, such as "number=mra,format=0.1": weights accuracy=1, iou=1, format=0 and forms
    number=exact|mra, text=rouge|exact, span=iou|boundary. What is left out has the value that stands first here."""
    rollout_batch: Positive = 64
    """Responses that are drawn side by side: memory goes by this, results do not."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = CLIP_LOW
    """How far the probability ratio may fall below 1."""
    clip_high: Annotated[float, Field(gt=0)] = CLIP_HIGH
    """How far the probability ratio may rise above 1."""
    checkpoint_every: Count = 50
    """Steps between checkpoints; one is always written at the end. 0: at the end only."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that stay on disk."""
    resume: bool = False
    """Go on from the newest checkpoint in `out`, or start when there is none."""

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


class SftConfig(_Settings):
    """Settings of `strive-train sft`: imitate the right answers of a curated dataset on its anchor views."""

    out: Path = Path("runs") / "sft"
    """Folder for the trained policy, metrics and the resolved settings."""
    lr: Annotated[float, Field(gt=0)] = 1e-5
    """Learning rate after warm-up; constant from there on."""
    groups: Positive = 8
    """Samples of a step."""


Config = TypeVar("Config", bound=_Settings)

MAY_CHANGE = frozenset(
    {
        *("store", "out", "policy", "device", "resume"),
        *("steps", "checkpoint_every", "keep_checkpoints", "micro_tokens", "rollout_batch"),
    }
)
"""What a resumed run may change: where things lie, how long and in what portions it works, not what it computes."""


def build(
    kind: type[Config],
    *,
    base: Mapping[str, Any] | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Settings from all places: defaults, below the TOML file, below `--set` and the options of the command line.

    Args:
        kind: RunConfig or SftConfig.
        base: defaults that the program adds.
        file: TOML with top-level keys.
        sets: texts "key=value"; a list is written as in TOML: "betas=[0.9, 0.95]".
        options: values by name; None means that the option was not given.

    Raises:
        UserError: unreadable file, unknown key, wrong value, or a key given by an option and by `--set`.
    """
    values = read_toml(file) if file else {}
    given = {name: value for name, value in (options or {}).items() if value is not None}
    assigned = dict(parse_assignment(text) for text in sets)
    for name in assigned.keys() & given.keys():
        raise UserError(f"--set {name}", "is given by its own option too", "keep one of them")
    try:
        return kind.model_validate({**(base or {}), **values, **given, **assigned})
    except ValidationError as error:
        raise user_error(error, kind) from error


def read_toml(file: Path) -> dict[str, Any]:
    """The keys of a TOML file. Raises UserError when it is absent or not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            str(file), f"expected a TOML file ({error.strerror})", "check the path given as --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(str(file), f"is not TOML ({error})", "write it as `strive-train config` prints it") from error


def parse_assignment(text: str) -> tuple[str, Any]:
    """("key", value) of "key=value": a list is read as TOML, all else stays text, which the field's type then reads.

    Raises:
        UserError: no "=", no key, or a list that is not TOML.
    """
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name:
        raise UserError(f"--set {text!r}", "expected key=value", SHOW)
    if not value.startswith("["):
        return name, value
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"--set {text!r}", "expected a list like [0.9, 0.99]", SHOW) from error


def user_error(error: ValidationError, kind: type[BaseModel]) -> UserError:
    """The first problem of a validation as one line: field, value, expectation."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return UserError(f"setting {field}", f"is needed and was not given{more}", SHOW)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, kind.model_fields, n=1)
        hint = f"no such setting, did you mean {near[0]}?" if near else "no such setting"
        return UserError(f"setting {field}", f"{hint}{more}", SHOW)
    if first["type"] == "value_error":
        return UserError("settings", f"{first['ctx']['error']}{more}", SHOW)
    message = first["msg"].removeprefix("Input ")
    return UserError(f"setting {field}={first['input']}", f"{message}{more}", SHOW)


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
