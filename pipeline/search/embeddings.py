"""The embeddings of cached frames, as score-frames keeps them: whose there are, and how they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.fingerprint import fingerprint
from pipeline.store import Store

_NEXT = "strive-data score-frames"


@dataclass(frozen=True)
class Embedded:
    """The embedded videos of one scorer: their rows in a snapshot of the table, by video_id, and their identity."""

    scorer: str
    dim: int
    rows: dict[str, int]
    key: str
    snapshot: Any

    def read(self, videos: Sequence[str]) -> dict[str, npt.NDArray[np.float16]]:
        """Embeddings of some videos, float16 [n, dim] each."""
        offsets = sorted((self.rows[video], video) for video in set(videos))
        taken = self.snapshot.take([offset for offset, _ in offsets], ["embeddings"])["embeddings"]
        return {
            video: taken[i].values.to_numpy(zero_copy_only=False).reshape(-1, self.dim)
            for i, (_, video) in enumerate(offsets)
        }


def scorers(store: Store) -> dict[str, int]:
    """How many videos each scorer has embedded."""
    names: list[str] = store.table("frame_embeddings", ["scorer"])["scorer"].to_pylist()
    return {name: names.count(name) for name in sorted(set(names))}


def pick_scorer(store: Store, wanted: str | None, usual: str | None = None, option: str = "--model") -> str:
    """Which scorer's embeddings to use: the wanted one, else the only one, else the usual one when it is among them.

    Args:
        wanted, usual: labels.
        option: of the command that asks, by which one is chosen.

    Returns:
        its label; "" when nothing is embedded and none is wanted.

    Raises:
        UserError: the wanted one has embedded nothing, or there are several to choose from.
    """
    known = scorers(store)
    if wanted is not None and wanted not in known:
        listed = ", ".join(known) or "none"
        raise UserError(f"scorer {wanted}", f"it has embedded no frames here; the store has those of {listed}", _NEXT)
    if wanted is not None or len(known) < 2:
        return wanted if wanted is not None else next(iter(known), "")
    if usual in known:
        return str(usual)
    raise UserError(option, f"frames are embedded by {', '.join(known)}: choose one", f"say {option}")


def embedded(store: Store, scorer: str) -> Embedded:
    """The videos that a scorer has embedded.

    Args:
        scorer: its label, as the table has it.

    Raises:
        UserError: it has embedded none.
    """
    snapshot = store.snapshot("frame_embeddings")
    rows = snapshot.columns(["video_id", "scorer", "dim", "fingerprint"]).to_pylist()
    mine = sorted((row["video_id"], i) for i, row in enumerate(rows) if row["scorer"] == scorer)
    if not mine:
        known = ", ".join(scorers(store)) or "none"
        raise UserError(f"scorer {scorer}", f"it has embedded no frames here; the store has those of {known}", _NEXT)
    prints = [(video, rows[i]["fingerprint"]) for video, i in mine]
    return Embedded(scorer, rows[mine[0][1]]["dim"], dict(mine), fingerprint("embedded", scorer, prints), snapshot)
