"""The three curves of STRIVE's Figure 3 as one small picture: reward deviation, dead groups, gradient norm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toyworld.demo_figures import CURVES, column, smooth
from toyworld.reproduce.plan import ANCHOR, ARMS, IMPORTANCE, STRIVE

COLOURS = {ANCHOR: "#7f8c9b", IMPORTANCE: "#d98032", STRIVE: "#1f6fb2"}


def draw(runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Draw mean (line) and range (band) over the seeds, both smoothed over a tenth of the steps.

    The same figures give the same bytes: nothing of the time or the library stands in the file.

    Args:
        runs: by arm the metrics of each seed. path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    with plt.rc_context(style):
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
        for axis, (name, label) in zip(axes, CURVES.items(), strict=True):
            for arm, colour in COLOURS.items():
                each = np.stack([column(rows, name) for rows in runs[arm]])
                width = 1 + 2 * max(1, each.shape[1] // 20)
                steps = np.arange(1, each.shape[1] + 1)
                smoothed = np.stack([smooth(row, width) for row in each])
                axis.fill_between(steps, smoothed.min(0), smoothed.max(0), color=colour, alpha=0.15, linewidth=0)
                axis.plot(steps, smoothed.mean(0), color=colour, linewidth=2, label=ARMS[arm].title)
            axis.set(title=label[0].upper() + label[1:], xlabel="step")
            axis.set_ylim(bottom=0)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80, metadata={"Software": None})
        plt.close(figure)
