"""The benchmarks by the name of their dataset, and the figures of all responses by dataset and view."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.grading import choices, nextgqa, qvhighlights, video_mmmu, vsi_bench
from trainer.grading.benchmark import Benchmark, Rows, alone, column, counted, general, grounding, groups, key
from trainer.grading.figures import Figure, difference, table_of
from trainer.grading.graded import Graded

BLIND = "blind"
"""The view without any frame."""


def _grounded(title: str, **columns: str) -> Benchmark:
    axes = {name.replace("_", " "): column(held) for name, held in columns.items()}
    return Benchmark(title, alone(grounding), axes)


GENERAL = Benchmark("", alone(general), {"task": lambda row: row.task})
BENCHMARKS: Mapping[str, Benchmark] = {
    key(name): benchmark
    for name, benchmark in {
        "vsi-bench": vsi_bench.BENCHMARK,
        "nextqa": nextgqa.NEXTQA,
        "nextgqa": nextgqa.NEXTGQA,
        "video-mme": choices.VIDEO_MME,
        "tempcompass": choices.TEMPCOMPASS,
        "video-mmmu": video_mmmu.BENCHMARK,
        "mmvu": choices.MMVU,
        "perception-test": choices.PERCEPTION_TEST,
        "mvbench": choices.MVBENCH,
        "egoschema": choices.EGOSCHEMA,
        "tvgbench": _grounded("TVGBench", query="qsemtype", origin="dataset_name"),
        "charades-sta": _grounded("Charades-STA"),
        "activitynet": _grounded("ActivityNet Captions"),
        "tacos": _grounded("TACoS"),
        "time-r1": _grounded("Time-R1"),
        "temporal-r1": _grounded("Temporal-R1", dataset="dataset"),
        "qvhighlights": qvhighlights.BENCHMARK,
    }.items()
}


def benchmark_of(dataset: str) -> Benchmark:
    """How a dataset is scored: as its benchmark says, or by the general figures."""
    return BENCHMARKS.get(key(dataset), GENERAL)


def sets(rows: Rows) -> dict[tuple[str, str], list[Graded]]:
    """Responses by (dataset, view), sorted."""
    out: dict[tuple[str, str], list[Graded]] = {}
    for row in rows:
        out.setdefault((row.dataset, row.view), []).append(row)
    return dict(sorted(out.items()))


def figures_of(rows: Rows) -> dict[tuple[str, str], dict[str, Figure]]:
    """The figures of each dataset on each view."""
    found = sets(rows)
    return {
        (dataset, view): benchmark_of(dataset).figures(part, () if view == BLIND else found.get((dataset, BLIND), ()))
        for (dataset, view), part in found.items()
    }


def benchmarks(rows: Rows, withheld: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """What an evaluation reports of each dataset on each view: counts, figures, and breakdowns.

    Args:
        withheld: predictions by (dataset, view) whose truth is not known; they are counted, and nothing else.
    """
    found, figures = sets(rows), figures_of(rows)
    out = []
    for name in sorted({*found, *withheld}):
        dataset, view = name
        part, scored = found.get(name, []), benchmark_of(dataset)
        counts = counted(part, withheld.get(name, 0)) | (scored.counts(part) if scored.counts else {})
        by = {
            axis: {group: table_of(scored.of_group(some)) for group, some in groups(part, of).items()}
            for axis, of in scored.axes.items()
        }
        out.append(
            {
                "dataset": dataset,
                "view": view,
                "benchmark": scored.title,
                "counts": counts,
                "figures": table_of(figures.get(name, {})),
                "by": {axis: parts for axis, parts in by.items() if parts},
                "note": scored.note,
            }
        )
    return out


def compared(checkpoints: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """The same figures of several checkpoints, each against the first, one entry a figure.

    Args:
        checkpoints: graded responses by the checkpoint's name, to the same samples on the same views.

    Returns:
        dataset, view, figure, n, values (one a checkpoint), differences (one a further checkpoint: difference, low,
        high by the paired bootstrap over videos; low and high None where it has no interval).

    Raises:
        ValueError: the checkpoints did not answer the same samples on the same views.
    """
    asked = {name: sorted((row.dataset, row.view, row.sample_id) for row in rows) for name, rows in checkpoints.items()}
    first, *others = checkpoints
    for name in others:
        if asked[name] != asked[first]:
            raise ValueError(f"{name} and {first} did not answer the same questions")
    figures = {name: figures_of(rows) for name, rows in checkpoints.items()}
    out = []
    for place, of_first in figures[first].items():
        for figure, base in of_first.items():
            sides: Sequence[Figure] = [side[figure] for name in others if figure in (side := figures[name][place])]
            if len(sides) < len(others):
                continue  # a gain over a perfect score is no number: there is nothing to compare
            gaps = [difference(base, side) for side in sides]
            out.append(
                {
                    "dataset": place[0],
                    "view": place[1],
                    "figure": figure,
                    "n": base.n,
                    "values": [base.value, *(side.value for side in sides)],
                    "differences": [
                        {"difference": gap, "low": ends[0] if ends else None, "high": ends[1] if ends else None}
                        for gap, ends in gaps
                    ],
                }
            )
    return out
