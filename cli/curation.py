"""select: parse, call, print. Registered by cli.data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import toyworld
from cli import output
from cli.options import STORE, Address, Device, Engine, Gpus, Json, Retry, StorePath, Workers, chosen_engine
from pipeline.errors import UserError
from pipeline.store import Store
from trainer.device import check_device
from trainer.identity import policy_fingerprint

if TYPE_CHECKING:
    from pipeline.answerer import Answerer
    from pipeline.endpoint.draws import EndpointPolicy
    from pipeline.plan import SelectReport

_LEDGER, _RULE, _POOL, _CHOICE = "What the policy is asked", "What is kept", "What is looked at", "How many are kept"


def select(
    store: StorePath = STORE,
    name: Annotated[str, typer.Option("--name", help="Of the curated dataset.")] = "default",
    tag: Annotated[
        str | None, typer.Option("--tag", help="Of this version. Default: follows from its content.")
    ] = None,
    min_var: Annotated[
        str,
        typer.Option(
            "--min-var",
            help="Least variance of the reward, 0 to 0.25: a bare value holds for binary rewards, a tenth of it for "
            "graded ones (IoU, MRA, ROUGE); or by task: choice=0.1,grounding=0.01.",
            rich_help_panel=_RULE,
        ),
    ] = "0.1",
    min_acc: Annotated[
        float | None, typer.Option("--min-acc", help="Least mean reward, 0 to 1.", rich_help_panel=_RULE)
    ] = None,
    max_acc: Annotated[
        float | None, typer.Option("--max-acc", help="Largest mean reward, 0 to 1.", rich_help_panel=_RULE)
    ] = None,
    max_blind_acc: Annotated[
        float | None,
        typer.Option(
            "--max-blind-acc",
            help="Largest mean reward without any frame: leaves out what can be answered blind.",
            rich_help_panel=_RULE,
        ),
    ] = None,
    keep_all: Annotated[
        bool,
        typer.Option("--keep-all", help="No filter by variance: keep samples with rollouts.", rich_help_panel=_RULE),
    ] = False,
    reward: Annotated[
        str,
        typer.Option(
            "--reward",
            help="How reward parts are joined, e.g. number=mra,text=rouge,span=boundary,iou=2. The format part never "
            "enters the variance.",
            rich_help_panel=_RULE,
        ),
    ] = "",
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="cut: leave out what has too little variance. weight: keep it, and let the trainer draw samples by a "
            "weight that grows with their variance.",
            rich_help_panel=_CHOICE,
        ),
    ] = "cut",
    per_source: Annotated[
        int | None,
        typer.Option("--per-source", help="At most so many of each source, chosen diverse.", rich_help_panel=_CHOICE),
    ] = None,
    max_samples: Annotated[
        int | None,
        typer.Option("--max-samples", help="At most so many in all, chosen diverse.", rich_help_panel=_CHOICE),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option("--scorer", help="Whose frame embeddings tell videos apart.", rich_help_panel=_CHOICE),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Only samples of this source.", rich_help_panel=_POOL)
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Only samples of this split.", rich_help_panel=_POOL)
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            "--exclude",
            help="Leave out what was found before: leaks, duplicates, or leaks,duplicates.",
            rich_help_panel=_POOL,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="Policy that answers: a folder or a hub id. Default: the toy world's. With --endpoint: the name of "
            "the served model.",
            rich_help_panel=_LEDGER,
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            help="Ask an OpenAI-compatible server (vLLM, SGLang, transformers serve), e.g. http://127.0.0.1:8000/v1. "
            "A key is read from STRIVE_API_KEY.",
            rich_help_panel=_LEDGER,
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Requests at once to --endpoint.", rich_help_panel=_LEDGER)
    ] = 16,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds that --endpoint has for an answer.", rich_help_panel=_LEDGER)
    ] = 300.0,
    retries: Annotated[
        int,
        typer.Option("--retries", min=0, help="Further tries of a request to --endpoint.", rich_help_panel=_LEDGER),
    ] = 4,
    views: Annotated[
        str,
        typer.Option(
            "--views",
            help="anchor, or variants: the draws of a sample are dealt to all its views in turn.",
            rich_help_panel=_LEDGER,
        ),
    ] = "anchor",
    draws: Annotated[int, typer.Option("--draws", help="Responses a sample, at most.", rich_help_panel=_LEDGER)] = 8,
    fixed: Annotated[
        bool,
        typer.Option(
            "--fixed", help="Make all draws, also where the verdict is certain before.", rich_help_panel=_LEDGER
        ),
    ] = False,
    stop_error: Annotated[
        float,
        typer.Option(
            "--stop-error",
            help="With more than 8 draws of a binary reward: stop when the verdict changes with at most this "
            "probability (0: only when it cannot change).",
            rich_help_panel=_LEDGER,
        ),
    ] = 0.01,
    blind_draws: Annotated[
        int | None,
        typer.Option(
            "--blind-draws",
            help="Responses a sample without any frame. Default: as many as --draws with --max-blind-acc, else none.",
            rich_help_panel=_LEDGER,
        ),
    ] = None,
    one_frame_draws: Annotated[
        int,
        typer.Option("--one-frame-draws", help="Responses a sample with one frame.", rich_help_panel=_LEDGER),
    ] = 0,
    ledger_only: Annotated[
        bool,
        typer.Option(
            "--ledger-only", help="Ask nobody: decide by the draws that the ledger holds.", rich_help_panel=_LEDGER
        ),
    ] = False,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Of the sampling.", rich_help_panel=_LEDGER)
    ] = 1.0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", help="Longest response, in tokens.", rich_help_panel=_LEDGER)
    ] = 256,
    seed: Annotated[
        int, typer.Option("--seed", help="Of all draws, and of the choice under a budget.", rich_help_panel=_LEDGER)
    ] = 0,
    device: Device = "auto",
    workers: Workers = 0,
    engine: Engine = "local",
    address: Address = None,
    gpus_per_worker: Gpus = None,
    retry_quarantined: Retry = False,
    as_json: Json = False,
) -> None:
    """Ask a policy each question several times; keep, as a tagged dataset, the samples that have something to teach."""
    from pipeline import curate, verdicts
    from pipeline.drawing import Asker
    from pipeline.plan import Plan
    from pipeline.probes import Sampling
    from pipeline.rewards import RewardRule

    computing = chosen_engine(engine, address, gpus_per_worker, device)
    joined = RewardRule.parse(reward)
    if blind_draws is None:
        blind_draws = draws if max_blind_acc is not None else 0
    rule = verdicts.Rule(
        None if keep_all else verdicts.thresholds(min_var, joined), min_acc, max_acc, max_blind_acc, joined, stop_error
    )
    plan = Plan(
        name=name,
        tag=tag,
        source=source,
        split=split,
        exclude=tuple(kind.strip() for kind in exclude.split(",")) if exclude else (),
        views=views,
        draws=draws,
        blind_draws=blind_draws,
        one_frame_draws=one_frame_draws,
        per_source=per_source,
        max_samples=max_samples,
        scorer=scorer,
        mode=mode,
        seed=seed,
    )
    sampling = Sampling(temperature, max_tokens, seed)
    opened = Store(store)
    load: Callable[[str], Answerer]
    served = endpoint or "", policy, concurrency, timeout, retries
    if endpoint is not None:
        from pipeline.endpoint import endpoint_fingerprint
        from pipeline.endpoint.wire import identity as identity_of

        identity = identity_of(policy) if ledger_only and policy else endpoint_fingerprint(endpoint, policy)
        shown, place, load = policy or "the served model", "cpu", partial(_served, *served)
    else:
        folder = policy or str(toyworld.POLICY)
        if not Path(folder).exists() and policy is None:
            raise UserError(folder, "the toy world's policy is not there", "make toyworld-weights")
        identity, shown = policy_fingerprint(folder), Path(folder).name if Path(folder).exists() else folder
        load, place = partial(_loaded, folder), check_device(device)
    if not as_json:
        output.note(f"rule in force: {rule.text()}")
    typed = output.typed("strive-data")
    with computing as crew:
        asker = Asker(
            load,
            identity,
            sampling,
            adaptive=not fixed,
            draw=not ledger_only,
            batch=max(8, concurrency) if endpoint else 8,
            workers=workers,
            device=place,
            engine=crew,
            progress=output.Bar(),
            retry_quarantined=retry_quarantined,
        )
        report = curate.select(opened, plan, rule, asker, policy_name=shown, command=typed, commands=opened.commands())
    opened.remember(typed)
    next_command = f"strive-train run --store {store} --dataset {report.name}"
    if as_json:
        output.print_json(report.as_dict() | {"next": next_command})
        return
    _print(report, next_command)


def _loaded(folder: str, device: str) -> "Answerer":
    """What the stage loads in its worker: nobody imports PyTorch before somebody is asked."""
    from trainer.policy import load_answerer

    return load_answerer(folder, device)


def _served(
    url: str, model: str | None, concurrency: int, timeout: float, retries: int, device: str
) -> "EndpointPolicy":
    """What the stage loads in its worker: the device is the server's own."""
    from pipeline.endpoint import open_endpoint

    return open_endpoint(url, model, concurrency=concurrency, timeout_s=timeout, retries=retries)


def _print(report: "SelectReport", next_command: str) -> None:
    shown = ["pool", "kept", *(reason for reason, count in report.dropped.items() if count)]
    whole = {"pool": report.pool, "kept": report.kept, **report.dropped}
    body = [[task, *(funnel[k] for k in shown)] for task, funnel in [*report.per_task.items(), ("all", whole)]]
    output.print_table(f"select: {report.rule}", ["task", *shown], body)
    failed = {reason: count for ledger in report.rollouts for reason, count in ledger.reasons.items()}
    saved = f", {report.calls_saved:.0%} of {report.calls_planned} saved" if report.calls_saved > 0 else ""
    output.print_summary(
        f"curated dataset {report.name}, tag {report.tag}",
        f"{report.pool} samples; {report.calls} draws on views{saved}; {report.drawn_now} made now, probes included",
        f"{report.kept} samples, mean reward {report.reward_mean:.3f}, mean variance {report.reward_var:.3f}; "
        f"card: {report.card}",
        {reason: count for reason, count in {**report.dropped, **failed}.items() if count},
        next_command,
    )
