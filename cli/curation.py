"""select: parse, call, print. Registered by cli.data."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import toyworld
from cli import output
from cli.options import STORE, Device, Json, Retry, StorePath, Workers
from pipeline.errors import UserError
from pipeline.store import Store


def select(
    store: StorePath = STORE,
    name: Annotated[str, typer.Option("--name", help="Of the curated dataset.")] = "default",
    tag: Annotated[
        str | None, typer.Option("--tag", help="Of this version. Default: follows from its content.")
    ] = None,
    min_var: Annotated[
        float,
        typer.Option(
            "--min-var", help="Least variance of a binary reward, 0 to 0.25; a tenth of it holds for grounding."
        ),
    ] = 0.1,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="No filter: keep every sample with rollouts.")] = False,
    source: Annotated[str | None, typer.Option("--source", help="Only samples of this source.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only samples of this split.")] = None,
    exclude: Annotated[
        str | None,
        typer.Option("--exclude", help="Leave out what was found before: leaks, duplicates, or leaks,duplicates."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Policy that answers: a folder or a hub id. Default: the toy world's."),
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="Responses a sample, on the anchor view.")] = 8,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the sampling.")] = 1.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest response, in tokens.")] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Of all draws.")] = 0,
    device: Device = "auto",
    workers: Workers = 0,
    retry_quarantined: Retry = False,
    as_json: Json = False,
) -> None:
    """Ask a policy each question several times; keep, as a tagged dataset, the samples whose rewards differ."""
    from pipeline import curate

    rule = None if keep_all else curate.thresholds(min_var)
    opened = Store(store)
    from trainer.config import resolve_device  # after what fails fast: it imports torch
    from trainer.policy import load_answerer, policy_fingerprint

    folder = policy or str(toyworld.POLICY)
    if not Path(folder).exists() and policy is None:
        raise UserError(folder, "the toy world's policy is not there", "make toyworld-weights")
    identity = policy_fingerprint(folder)
    if not as_json:
        output.note(f"rule in force: {curate.rule_text(rule)}")
    report = curate.select(
        opened,
        name,
        None if keep_all else min_var,
        load_policy=partial(load_answerer, folder),
        policy_fingerprint=identity,
        policy_name=Path(folder).name if Path(folder).exists() else folder,
        tag=tag,
        source=source,
        split=split,
        exclude=[kind.strip() for kind in exclude.split(",")] if exclude else (),
        draws=draws,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        command=shlex.join(["strive-data", *sys.argv[1:]]),
        workers=workers,
        device=resolve_device(device),
        progress=output.Bar(),
        retry_quarantined=retry_quarantined,
    )
    next_command = f"strive-train run --store {store} --dataset {report.name}"
    if as_json:
        output.print_json(report.as_dict() | {"next": next_command})
        return
    shown = ["pool", "kept", *(reason for reason, count in report.dropped.items() if count)]
    whole = {"pool": report.pool, "kept": report.kept, **report.dropped}
    body = [[task, *(funnel[k] for k in shown)] for task, funnel in [*report.per_task.items(), ("all", whole)]]
    output.print_table(f"select: {curate.rule_text(report.rule)}", ["task", *shown], body)
    ledger = report.rollouts
    output.print_summary(
        f"curated dataset {report.name}, tag {report.tag}",
        f"{report.pool} samples; rollouts: {ledger.done} drawn now, {ledger.already} before",
        f"{report.kept} samples, mean reward {report.reward_mean:.3f}, mean variance {report.reward_var:.3f}; "
        f"card: {report.card}",
        _some({**report.dropped, **ledger.reasons}),
        next_command,
    )


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}
