"""Settings: where they come from, which override which, and what a wrong one is told."""

import json
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import UserError
from trainer.config import MAY_CHANGE, RunConfig, SftConfig, check_resume, describe, write
from trainer.settings import build, parse_assignment

POLICY = {"policy": "models/tiny"}


@pytest.mark.parametrize("kind", [RunConfig, SftConfig])
def test_every_setting_says_what_it_means(kind: type[RunConfig] | type[SftConfig]) -> None:
    described = describe(kind)
    assert len(described) <= 40
    assert all(setting["meaning"].endswith(".") for setting in described.values())
    assert [name for name, setting in described.items() if setting["required"]] == ["policy"]
    json.dumps(described)


def test_settings_do_not_change() -> None:
    config = build(RunConfig, options=POLICY)
    with pytest.raises(ValidationError, match="frozen"):
        config.lr = 1.0  # type: ignore[misc]


def test_options_stand_above_the_file_and_the_file_above_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('policy = "models/tiny"\nlr = 3e-5\nsteps = 7\nclip = [0.1, 0.3]\n')
    config = build(RunConfig, file=file, sets=["temperature=0.9"], options={"steps": 9, "seed": None})
    assert (config.lr, config.steps, config.temperature, config.clip) == (3e-5, 9, 0.9, (0.1, 0.3))
    assert config.seed == 0
    assert config.out == Path("runs/strive")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("lr=1e-5", ("lr", "1e-5")),
        ("tag=a=b", ("tag", "a=b")),
        (" steps = 3 ", ("steps", "3")),
        ("clip=[0.1, 0.3]", ("clip", [0.1, 0.3])),
        ("tag=", ("tag", "")),
    ],
)
def test_assignments(text: str, pair: tuple[str, object]) -> None:
    assert parse_assignment(text) == pair


@pytest.mark.parametrize(
    ("given", "pair"), [("10", (10, 2)), (10, (10, 2)), ("[10, 5]", (10, 5)), ([10, 5], (10, 5)), ("0", (0, 2))]
)
def test_steps_between_checkpoints_may_stand_alone(given: object, pair: tuple[int, int]) -> None:
    sets = [f"checkpoint_every={given}"] if isinstance(given, str) else []
    options = POLICY if isinstance(given, str) else POLICY | {"checkpoint_every": given}
    config = build(RunConfig, sets=sets, options=options)
    assert config.checkpoint_every == pair
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_a_tag_of_digits_stays_text() -> None:
    assert build(RunConfig, sets=["tag=0012"], options=POLICY).tag == "0012"


@pytest.mark.parametrize("text", ["lr", "=3", "clip=[0.1,"])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(UserError, match="expected"):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["steps=0"], r"steps=0: should be greater than or equal to 1"),
        (["lr=-1"], r"lr=-1: should be greater than 0"),
        (["lr=fast"], r"lr=fast: should be a valid number"),
        (["lr=nan"], r"lr=nan: should be a finite number"),
        (["temperature=0"], r"temperature=0: should be greater than 0"),
        (["view=middle"], r"view=middle: should be 'anchor' or 'importance'"),
        (["precision=fp8"], r"precision=fp8"),
        (["adamw=[0.9, 1.0, 0.0]"], r"adamw\.1=1\.0: should be less than 1"),
        (["adamw=[0.9, 0.99]"], r"adamw\.2"),
        (["clip=[1.2, 0.2]"], r"clip\.0=1\.2: should be less than 1"),
        (["advantage=both"], r"advantage=both: should be 'joint', 'per-view' or 'hierarchical'"),
        (["kl=-1"], r"kl=-1: should be greater than or equal to 0"),
        (["train_subset=1"], r"train_subset=1 of pools of 8 rollouts: set it to 0 \(all\) or to 2\.\.8"),
        (["train_subset=9"], r"train_subset=9 of pools of 8"),
        (["advantage=per-view", "responses=1"], "compares the responses of one view, and responses=1"),
        (["advantage=hierarchical", "scale=none"], "is advantage=joint: set scale=std"),
        (["update_on=anchor", "variants=1"], "has no view but its own"),
        (["two_wave=true", "variants=1"], "needs variants of 2 or more and pools of 4"),
        (["two_wave=true", "variants=3", "responses=1"], "got 3 x 1"),
        (["truncate=[0, 5]"], r"truncate\.0=0: should be greater than 0"),
        (["truncate=0.9"], r"truncate=0\.9"),
        (["checkpoint_every=-1"], r"checkpoint_every\.0=-1"),
        (["checkpoint_every=[5, 0]"], r"checkpoint_every\.1=0: should be greater than or equal to 1"),
        (["cache_vision=features", "freeze_vision=false"], "features of a tower that learns are old after a step"),
        (["resume=true"], "resume: no such setting"),
        (["varinats=4"], r"varinats: no such setting, did you mean variants\?"),
        (["zzz=4"], r"zzz: no such setting\. Next: `strive-train config`"),
        (["variants=1", "responses=1"], "pools of one rollout.*set responses to 2 or more"),
        (["steps=10", "warmup=10"], "lower warmup or raise steps"),
        (["reward=number=near"], "--reward number=near: expected exact or mra"),
        (["steps=0", "lr=0"], r"\(and 1 more\)"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_what_to_do(sets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(RunConfig, sets=sets, options=POLICY)
    assert "\n" not in str(caught.value)


def test_a_policy_is_needed() -> None:
    with pytest.raises(UserError, match="setting policy: is needed"):
        build(RunConfig)


def test_a_setting_given_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="own option too"):
        build(RunConfig, sets=["lr=1"], options={**POLICY, "lr": 2.0})


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        build(RunConfig, file=tmp_path / "none.toml")
    with pytest.raises(UserError, match="Is a directory"):
        build(RunConfig, file=tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text("lr = \n")
    with pytest.raises(UserError, match="is not TOML"):
        build(RunConfig, file=broken)


def test_written_settings_read_back_equal(tmp_path: Path) -> None:
    config = build(RunConfig, sets=["adamw=[0.8, 0.9, 0.1]", "tag=v1", "freeze_vision=false"], options=POLICY)
    write(config, tmp_path / "run" / "settings.json")
    assert RunConfig.model_validate_json((tmp_path / "run" / "settings.json").read_text()) == config
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["settings.json"]


def test_a_resumed_run_keeps_what_it_computes(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    write(build(RunConfig, options=POLICY), file)
    check_resume(build(RunConfig, sets=["steps=500", "micro_tokens=100"], options=POLICY), file)
    with pytest.raises(UserError, match=r"lr: 1e-06 -> 0\.1, seed: 0 -> 1"):
        check_resume(build(RunConfig, sets=["lr=0.1", "seed=1"], options=POLICY), file)
    with pytest.raises(UserError, match="does not hold the settings"):
        check_resume(build(SftConfig, options=POLICY), file)
    assert set(RunConfig.model_fields) >= MAY_CHANGE


def test_a_toml_file_of_all_defaults_is_the_defaults() -> None:
    config = build(RunConfig, options=POLICY)
    lines = [f"{k} = {json.dumps(v)}" for k, v in json.loads(config.model_dump_json()).items() if v is not None]
    assert RunConfig.model_validate(tomllib.loads("\n".join(lines))) == config
