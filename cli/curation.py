"""score-frames, build-variants and select: parse, call, print. Registered by cli.data."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import toyworld
from cli import output
from pipeline.errors import UserError
from pipeline.store import Store

StorePath = Annotated[Path, typer.Option("--store", help="Folder of the store.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Worker processes; 0 works in this one.")]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU when there is one), cpu or cuda.")]
Retry = Annotated[bool, typer.Option("--retry-quarantined", help="Try again what failed before.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
STORE = Path("strive-store")


def score_frames(
    store: StorePath = STORE,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Scorer: a folder, hf-hub:owner/repo or name:pretrained. Default: the toy world's."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, or bf16: three times faster on CPUs that have it.")
    ] = "fp32",
    device: Device = "auto",
    workers: Workers = 0,
    retry_quarantined: Retry = False,
    as_json: Json = False,
) -> None:
    """Score each cached frame by how relevant it is to each question about its video."""
    from pipeline import runner, scores
    from trainer.config import resolve_device

    opened = Store(store)
    name = model or str(toyworld.CLIP)
    stages = (scores.EmbedFrames(name, precision), scores.ScoreFrames(name, precision))
    where = resolve_device(device)
    embedded, scored = (
        runner.run(
            stage,
            opened,
            workers=workers,
            device=where,
            progress=output.Bar(),
            retry_quarantined=retry_quarantined,
        )
        for stage in stages
    )
    facts = scores.scored(opened)
    next_command = f"strive-data build-variants --store {store}"
    if as_json:
        both = {"to_do": embedded.to_do + scored.to_do, "embeddings": embedded.as_dict(), "scores": scored.as_dict()}
        output.print_json(both | facts | {"next": next_command})
        return
    output.print_summary(
        f"score-frames ({stages[0].spec.label})",
        f"{embedded.planned} videos, {facts['samples']} samples",
        f"{embedded.done} videos embedded now, {embedded.already} before; "
        f"{scored.done} samples scored now, {scored.already} before; "
        f"{facts['split']} questions split, {facts['cut_tokens']} tokens cut",
        _some({**facts["left_out"], **embedded.reasons, **scored.reasons}),
        next_command,
    )


def build_variants(
    store: StorePath = STORE,
    variants: Annotated[int, typer.Option("--variants", help="Views a sample, the anchor included.")] = 4,
    frames: Annotated[int, typer.Option("--frames", help="Frames a view.")] = 8,
    mix: Annotated[
        float, typer.Option("--mix", help="Share of relevance in the sampling: 0 coverage, 1 relevance.")
    ] = 0.8,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Of the relevance; low takes the best frames only.")
    ] = 0.1,
    bins: Annotated[
        int | None, typer.Option("--bins", help="Parts of the video that each get a frame. Default: half of --frames.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of all draws.")] = 0,
    spatial: Annotated[
        bool, typer.Option("--spatial/--no-spatial", help="Centred crops where the task allows.")
    ] = True,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Draw the views of each sample: an anchor, and views that favour the relevant frames."""
    from pipeline import runner
    from pipeline.variants import BuildVariants, built

    stage = BuildVariants(variants, frames, mix, temperature, bins, seed, spatial)
    opened = Store(store)
    report = runner.run(stage, opened, workers=workers, progress=output.Bar())
    facts = built(opened, variants)
    next_command = f"strive-data select --store {store}"
    if as_json:
        output.print_json(report.as_dict() | facts | {"next": next_command})
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["kinds"].items())
    output.print_summary(
        "build-variants",
        f"{facts['samples']} samples",
        f"{report.done} samples now, {report.already} before: {facts['views']} views ({kinds or 'none'})",
        _some(
            {
                **facts["left_out"],
                **report.reasons,
                "views that came out equal": facts["equal_views"],
                "samples whose scores tell nothing (coverage views)": facts["flat_scores"],
            }
        ),
        next_command,
    )


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
