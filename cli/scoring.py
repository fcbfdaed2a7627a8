"""score-frames: parse, call, print. Registered by cli.data."""

from typing import Annotated

import typer

import toyworld
from cli import output
from cli.options import STORE, Address, Device, Engine, Gpus, Json, Retry, StorePath, Workers, chosen_engine
from pipeline.store import Store


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
    text: Annotated[
        str,
        typer.Option("--text", help="question, or question+options: then each option is scored behind the question."),
    ] = "question",
    combine: Annotated[
        str, typer.Option("--combine", help="What a frame's scores with several windows of a text become: max or mean.")
    ] = "max",
    batch: Annotated[
        int | None, typer.Option("--batch", help="Frames in one pass of the model. Default: from the free memory.")
    ] = None,
    device: Device = "auto",
    workers: Workers = 0,
    engine: Engine = "local",
    address: Address = None,
    gpus_per_worker: Gpus = None,
    retry_quarantined: Retry = False,
    as_json: Json = False,
) -> None:
    """Score each cached frame by how relevant it is to each question about its video."""
    from pipeline import runner, scores
    from trainer.device import check_device, resolve_device

    computing = chosen_engine(engine, address, gpus_per_worker, device)
    opened = Store(store)
    name = model or str(toyworld.CLIP)
    stages = (
        scores.EmbedFrames(name, precision, batch),
        scores.ScoreFrames(name, precision, batch, text, combine),
    )
    # What there is to compute on, a cluster knows better than the machine that asks it.
    where = resolve_device(device) if engine == "local" else check_device(device)
    with computing as crew:
        embedded, scored = (
            runner.run(
                stage,
                opened,
                workers=workers,
                device=where,
                engine=crew,
                progress=output.Bar(),
                retry_quarantined=retry_quarantined,
            )
            for stage in stages
        )
    opened.remember(output.typed("strive-data"))
    facts = scores.scored(opened)
    next_command = f"strive-data build-variants --store {store}"
    if as_json:
        both = {"to_do": embedded.to_do + scored.to_do, "embeddings": embedded.as_dict(), "scores": scored.as_dict()}
        output.print_json(both | facts | {"next": next_command})
        return
    output.print_summary(
        f"score-frames ({stages[0].loader.label})",
        f"{embedded.planned} videos, {facts['samples']} samples",
        f"{embedded.done} videos embedded now, {embedded.already} before; "
        f"{scored.done} samples scored now, {scored.already} before; "
        f"{facts['split']} questions split, {facts['cut_tokens']} tokens cut",
        _some({**facts["left_out"], **embedded.reasons, **scored.reasons}),
        next_command,
    )


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}
