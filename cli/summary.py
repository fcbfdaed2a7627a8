"""What tags of a curated dataset came to: `inspect` with nothing named, and `diff`. Registered by cli.data."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli import output
from cli.options import STORE, Json, StorePath
from pipeline import tagdiff
from pipeline.store import Store


def show(found: Mapping[str, Any]) -> None:
    """Print what pipeline.summary.whole found."""
    facts = found["facts"]
    funnels = {"all": found["funnel"]["all"][0], **{row["task"]: row for row in found["funnel"]["task"]}}
    rows = [[what, *(row[what] for row in funnels.values())] for what in ("pool", "kept")]
    rows += [["share kept", *(_share(row, "kept", "pool") for row in funnels.values())]]
    rows += [
        [reason, *(row["left_out"].get(reason, 0) for row in funnels.values())] for reason in funnels["all"]["left_out"]
    ]
    output.print_table(f"{found['dataset']}, tag {facts['tag']}: {facts['rule']}", ["samples", *funnels], rows)
    rows = [
        [row["source"], row["pool"], row["kept"], _share(row, "kept", "pool"), _counts(row["left_out"])]
        for row in found["funnel"]["source"]
    ]
    output.print_table("by source", ["source", "pool", "kept", "share kept", "left out"], rows)
    spreads = [
        [
            row["task"],
            row["samples"],
            row["draws"],
            row["reward_mean"],
            row["reward_var"],
            _share(row, "dead", "samples"),
        ]
        for row in found["spreads"]
    ]
    columns = ["task", "samples", "draws", "mean reward", "mean variance", "dead"]
    output.print_table(f"rewards, kept or not; drawing: {facts['drawing']}", columns, spreads)
    bars = [
        [row["task"], row["of"], f"0 to {row['edges'][-1]:g}", _bar(row["kept"]), _bar(row["left_out"])]
        for row in found["histograms"]
    ]
    output.print_table("how many in each tenth of the range", ["task", "of", "range", "kept", "left out"], bars)
    if found["gaps"]:
        gaps = [
            [row["source"], row["probe"], row["samples"], row["with_views"], row["with_probe"], _gap(row)]
            for row in found["gaps"]
        ]
        columns = ["source", "probe", "samples", "mean with views", "with the probe", "gap"]
        output.print_table("what frames are worth", columns, gaps)
    ends = [
        [
            row["which"],
            row["task"],
            row["question"] or "",
            row["reason"] or "kept",
            row["reward_mean"],
            row["reward_var"],
        ]
        for row in found["samples"]
    ]
    output.print_table("samples", ["", "task", "question", "verdict", "mean reward", "variance"], ends)


def diff(
    first: Annotated[str, typer.Argument(help="A tag.")],
    second: Annotated[str, typer.Argument(help="Another tag of the same dataset.")],
    store: StorePath = STORE,
    name: Annotated[str | None, typer.Option("--name", help="The dataset. Default: the one with both tags.")] = None,
    limit: Annotated[int, typer.Option(help="Samples shown at most.", min=0)] = 10,
    json: Json = False,
) -> None:
    """Compare two tags: which samples, why, under which settings, with which statistics."""
    found = tagdiff.compare(Store(store), first, second, name)
    if json:
        output.print_json(found.as_dict())
        return
    rows = [["both", found.both, ""]]
    rows += [[f"{first} only", found.only_a, _counts(found.left_out_of_b)]]
    rows += [[f"{second} only", found.only_b, _counts(found.left_out_of_a)]]
    output.print_table(f"{found.dataset}: {first} and {second}", ["kept in", "samples", "why not in the other"], rows)
    if found.samples:
        columns = ["sample_id", "source", "task", "kept_in", "reason"]
        title = f"{min(limit, len(found.samples))} of {len(found.samples)} samples that one alone keeps"
        output.print_table(title, columns, [[row[c] for c in columns] for row in found.samples[:limit]])
    if found.settings:
        output.print_table("settings", ["what", first, second], [[what, *two] for what, two in found.settings.items()])
    changes = [[what, *change.values()] for what, change in found.statistics.items()]
    output.print_table("means over the samples in both", ["what", first, second, "samples changed"], changes)


def _share(row: Mapping[str, Any], part: str, whole: str) -> str:
    return f"{row[part] / row[whole]:.1%} [{row[f'{part}_low']:.1%}, {row[f'{part}_high']:.1%}]"


def _gap(row: Mapping[str, Any]) -> str:
    return f"{row['gap']:+.3f}" + ("" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]")


def _bar(counts: list[int]) -> str:
    return " ".join(str(count) for count in counts)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
