"""strive-train: from a curated dataset to a policy."""

import json as text_json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from toyworld import POLICY
from trainer import config as settings
from trainer.config import RunConfig, SftConfig
from trainer.device import resolve_device

PROGRAM = "strive-train"
DEFAULT_DATASET = "default"

app = typer.Typer(
    name=PROGRAM, help=__doc__, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

# An option that was not given is None: then the file of --config, or else the default, holds.
StorePath = Annotated[Path | None, typer.Option("--store", help="Folder of the store. Default: strive-store.")]
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
    config: ConfigFile = None,
    set: Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    allow_eval: AllowEval = False,
    json: Json = False,
) -> None:
    """Train a policy by GRPO (--variants 1) or STRIVE (several), from prebuilt views only.

    A step draws groups x variants x responses rollouts; advantages are normalised over all rollouts of a sample. --out
    gets config.json, metrics.jsonl (a row a step) and checkpoints that transformers and --policy open.
    """
    options = {
        "store": store,
        "dataset": dataset,
        "tag": tag,
        "policy": policy,
        "out": out,
        "resume": resume or None,
        "allow_eval": allow_eval or None,
        "variants": variants,
        "view": view,
        "responses": responses,
        "groups": groups,
        "steps": steps,
        "seed": seed,
        "temperature": temperature,
        "lr": lr,
        "max_tokens": max_tokens,
        "reward": reward,
    }
    chosen = settings.build(RunConfig, base={"policy": str(POLICY)}, file=config, sets=set or (), options=options)
    from trainer.train import run as train

    _quiet_unless_terminal()
    found = train(chosen, output.Bar())
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
    config: ConfigFile = None,
    set: Sets = None,
    allow_eval: AllowEval = False,
    json: Json = False,
) -> None:
    """Teach a policy the right answers of a curated dataset, on its anchor views."""
    options = {
        "store": store,
        "dataset": dataset,
        "tag": tag,
        "policy": policy,
        "out": out,
        "steps": steps,
        "lr": lr,
        "seed": seed,
        "allow_eval": allow_eval or None,
    }
    chosen = settings.build(SftConfig, base={"policy": str(POLICY)}, file=config, sets=set or (), options=options)
    from trainer.sft import run as train

    _quiet_unless_terminal()
    found = train(chosen, output.Bar())
    _report("sft", found, chosen, json)


@app.command("eval")
def evaluate(
    store: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("strive-store"),
    dataset: Annotated[
        str | None, typer.Option(help="Curated dataset to answer. Default, without --split: default.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Answer all samples of this split that have views.")] = None,
    policy: Annotated[
        str, typer.Option(help="A folder in transformers' layout (a checkpoint), or a hub id.", show_default=False)
    ] = str(POLICY),
    view: Annotated[str, typer.Option(help="Views to answer on: anchor, importance or all (both).")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Samples at most. Default: all.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 256,
    reward: Reward = None,
    device: Annotated[str, typer.Option(help="auto (a GPU when there is one), cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="File for the predictions, one JSON object a line.")] = None,
    json: Json = False,
) -> None:
    """Answer every sample at temperature 0; report accuracy, mIoU and format rate, by task and by view."""
    chosen = DEFAULT_DATASET if dataset is None and split is None else dataset
    place = resolve_device(device)
    from trainer.evaluate import evaluate as answer

    _quiet_unless_terminal()
    found = answer(
        store,
        dataset=chosen,
        split=split,
        policy=policy,
        view=view,
        limit=limit,
        out=out,
        max_tokens=max_tokens,
        reward=reward or "",
        device=place,
        progress=output.Bar(),
    )
    if json:
        output.print_json(found)
        return
    groups = {"all": found, **found["by_task"], **{f"{name} view": part for name, part in found["by_view"].items()}}
    title = f"{found['samples']} samples of {chosen or split}; 95 %: Wilson interval of the accuracy"
    columns = ["", "n", "accuracy", "95 %", "mIoU", "R1@0.5", "format"]
    output.print_table(title, columns, [[name, *_figures(part)] for name, part in groups.items()])


@app.command()
def config(
    sft: Annotated[bool, typer.Option("--sft", help="The settings of sft instead of run.")] = False,
    json: Json = False,
) -> None:
    """Print every setting with its default and meaning, as TOML for --config."""
    described = settings.describe(SftConfig if sft else RunConfig)
    if json:
        output.print_json(described)
        return
    for name, setting in described.items():
        line = f"{name} = {text_json.dumps(setting['default'])}"
        meaning = " ".join(setting["meaning"].split())  # a comment ends with its line
        print(f"# {meaning}\n{line if setting['default'] is not None else f'# {name} ='}\n")


def _figures(part: Mapping[str, Any]) -> list[Any]:
    """A row of eval's table; what a task does not have is left empty."""
    interval = f"{part['accuracy_low']:.2f} - {part['accuracy_high']:.2f}" if "accuracy" in part else None
    return [part["n"], part.get("accuracy"), interval, part.get("miou"), part.get("r1@0.5"), part["format_rate"]]


def _quiet_unless_terminal() -> None:
    """transformers draws a bar for every load and save; nobody looks at one that goes into a file."""
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()


def main() -> None:
    """The program `strive-train`."""
    output.run(app, PROGRAM)


def _report(title: str, found: dict[str, Any], chosen: RunConfig | SftConfig, json: bool) -> None:
    """What a training command came to, and what to type next."""
    places = ("--store", str(chosen.store), "--dataset", chosen.dataset, "--policy", str(found["checkpoint"]))
    next_command = shlex.join((PROGRAM, "eval", *places))
    if json:
        output.print_json(found | {"next": next_command})
        return
    rows = [[name.replace("_", " "), value] for name, value in found.items()]
    output.print_table(title, ["", "value"], rows)
    print(f"next: {next_command}")


if __name__ == "__main__":
    main()
