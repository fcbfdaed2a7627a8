"""strive-train: from a curated dataset to a policy."""

import json as text_json
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import evaluation, output
from cli.report_runs import report
from cli.storage import Program, again, arguments
from toyworld import POLICY
from trainer import settings
from trainer.config import RunConfig, SftConfig, describe

PROGRAM = "strive-train"

app = Program(name=PROGRAM, help=__doc__, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

# An option that was not given is None: then the file of --config, or else the default, holds.
StorePath = Annotated[
    str | None,
    typer.Option("--store", help="The store: a folder, or a URI such as s3://bucket/prefix. Default: strive-store."),
]
Dataset = Annotated[str | None, typer.Option("--dataset", help="Curated dataset to train on. Default: default.")]
Tag = Annotated[str | None, typer.Option("--tag", help="Tagged version of the dataset. Default: its newest version.")]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="A folder in transformers' layout, or a hub id. Default: the toy world's policy."),
]
Steps = Annotated[int | None, typer.Option(help="Updates in all. Default: 100.")]
Rate = Annotated[float | None, typer.Option(help="Learning rate. Default: 1e-6 for run, 1e-5 for sft.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the order of the data and of every draw. Default: 0.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings, below the options here.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting of `strive-train config`; may be repeated."),
]
AllowEval = Annotated[
    bool, typer.Option("--allow-eval", help="Train although samples come from an evaluation split (val, test, ...).")
]
Reward = Annotated[
    str | None,
    typer.Option(
        "--reward", help='How reward parts join, e.g. "number=mra,format=0.1"; `strive-train config` has all.'
    ),
]
Lora = Annotated[
    int | None, typer.Option("--lora-rank", help="Train LoRA matrices of this rank only. Default: 0, all weights.")
]
CacheVision = Annotated[
    Path | None,
    typer.Option("--cache-vision", help="Folder that keeps the frozen vision tower's features. Default: none."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


@app.callback(invoke_without_command=True)
def strive_train(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=output.version_option(PROGRAM)),
    ] = False,
) -> None:
    """From a curated dataset to a policy: run (GRPO and STRIVE), eval, sft; config lists the settings."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def run(
    store: StorePath = None,
    dataset: Dataset = None,
    tag: Tag = None,
    policy: PolicyName = None,
    out: Annotated[Path | None, typer.Option(help="Folder for checkpoints and metrics. Default: runs/strive.")] = None,
    variants: Annotated[int | None, typer.Option(help="M, views of a sample; 1 is GRPO. Default: 4.")] = None,
    view: Annotated[
        str | None, typer.Option(help="The view of --variants 1: anchor or importance. Default: anchor.")
    ] = None,
    responses: Annotated[int | None, typer.Option(help="G, responses for each view. Default: 2.")] = None,
    groups: Annotated[int | None, typer.Option(help="Samples of a step. Default: 8.")] = None,
    steps: Steps = None,
    seed: Seed = None,
    temperature: Annotated[float | None, typer.Option(help="Temperature of the rollouts. Default: 1.0.")] = None,
    lr: Rate = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest response. Default: 1024.")] = None,
    reward: Reward = None,
    advantage: Annotated[
        str | None, typer.Option(help="What rewards compare with: joint, per-view or hierarchical. Default: joint.")
    ] = None,
    kl: Annotated[float | None, typer.Option(help="Weight of the KL penalty to the start. Default: 0.")] = None,
    train_subset: Annotated[
        int | None, typer.Option(help="Rollouts of a pool to train on, those of greatest variance. Default: all.")
    ] = None,
    update_on: Annotated[
        str | None, typer.Option(help="View that the update sees: variant (its own) or anchor. Default: variant.")
    ] = None,
    two_wave: Annotated[
        bool, typer.Option("--two-wave", help="Draw half of a pool on the anchor, the rest only where that is dead.")
    ] = False,
    refill: Annotated[
        int | None, typer.Option(help="How often a dead pool may be replaced from the stream. Default: 0.")
    ] = None,
    lora_rank: Lora = None,
    cache_vision: CacheVision = None,
    config: ConfigFile = None,
    set: Sets = None,
    resume: Resume = False,
    allow_eval: AllowEval = False,
    json: Json = False,
) -> None:
    """Train a policy by GRPO (--variants 1) or STRIVE (several), from prebuilt views only.

    A step draws groups x variants x responses rollouts; advantages are normalised over all rollouts of a sample. --out
    gets config.json, run.json, metrics.jsonl (a row a step) and checkpoints that transformers and --policy open.
    SIGTERM and ctrl-C end a run after the step under way, with a checkpoint (exit codes 143 and 130).
    """
    given = _given(locals())
    chosen = settings.build(RunConfig, base={"policy": str(POLICY)}, file=config, sets=set or (), options=given)
    from trainer.live import LiveLine
    from trainer.train import run as train

    _quiet_unless_terminal()
    found = train(chosen, LiveLine(chosen.steps), resume=resume)
    _report("run", found, chosen, json)


@app.command()
def sft(
    store: StorePath = None,
    dataset: Dataset = None,
    tag: Tag = None,
    policy: PolicyName = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the trained policy. Default: runs/sft.")] = None,
    steps: Steps = None,
    lr: Rate = None,
    seed: Seed = None,
    lora_rank: Lora = None,
    cache_vision: CacheVision = None,
    config: ConfigFile = None,
    set: Sets = None,
    resume: Resume = False,
    allow_eval: AllowEval = False,
    json: Json = False,
) -> None:
    """Teach a policy the right answers of a curated dataset, on its anchor views.

    SIGTERM and ctrl-C end it as they end `run`.
    """
    given = _given(locals())
    chosen = settings.build(SftConfig, base={"policy": str(POLICY)}, file=config, sets=set or (), options=given)
    from trainer.live import LiveLine
    from trainer.sft import run as train

    _quiet_unless_terminal()
    found = train(chosen, LiveLine(chosen.steps), resume=resume)
    _report("sft", found, chosen, json)


app.command("eval")(evaluation.evaluate)
app.command()(report)


@app.command()
def merge(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a LoRA run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the merged policy.")],
) -> None:
    """Write a LoRA checkpoint and the policy that it adapts as one policy of full weights."""
    from trainer.adapters import merge as write

    _quiet_unless_terminal()
    write(checkpoint, out)
    print(f"next: {shlex.join((PROGRAM, 'eval', '--policy', str(out)))}")


@app.command()
def config(
    sft: Annotated[bool, typer.Option("--sft", help="The settings of sft instead of run.")] = False,
    json: Json = False,
) -> None:
    """Print every setting with its default and meaning, as TOML for --config."""
    described = describe(SftConfig if sft else RunConfig)
    if json:
        output.print_json(described)
        return
    for name, setting in described.items():
        line = f"{name} = {text_json.dumps(setting['default'])}"
        meaning = " ".join(setting["meaning"].split())  # a comment ends with its line
        print(f"# {meaning}\n{line if setting['default'] is not None else f'# {name} ='}\n")


def _quiet_unless_terminal() -> None:
    """transformers draws a bar for every load and save; nobody looks at one that goes into a file."""
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()


def main() -> None:
    """The program `strive-train`."""
    output.run(app, PROGRAM)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a command's parameters those that are settings; an option that was not given and a flag not set are None."""
    known = RunConfig.model_fields.keys() | SftConfig.model_fields.keys()
    return {name: None if value is False else value for name, value in values.items() if name in known}


def _report(title: str, found: dict[str, Any], chosen: RunConfig | SftConfig, json: bool) -> None:
    """What a training command came to, and what to type next. A run that was stopped ends as its signal says.

    Of several processes the main one alone has something to tell.
    """
    if "checkpoint" in found:
        _print_report(title, found, chosen, json)
    if found["stopped"]:
        raise typer.Exit(128 + signal.Signals[found["stopped"]])


def _print_report(title: str, found: dict[str, Any], chosen: RunConfig | SftConfig, json: bool) -> None:
    if found["stopped"]:
        next_command = shlex.join((PROGRAM, *(word for word in arguments() if word != "--resume"), "--resume"))
    else:
        places = ("--store", chosen.store, "--dataset", chosen.dataset, "--policy", str(found["checkpoint"]))
        next_command = shlex.join((PROGRAM, "eval", *places))
    if json:
        output.print_json(found | {"next": next_command})
    else:
        rows = [[name.replace("_", " "), value] for name, value in found.items()]
        output.print_table(title, ["", "value"], rows)
        print(f"next: {again(next_command)}")


if __name__ == "__main__":
    main()
