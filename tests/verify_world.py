"""A small store that went through every stage twice, so that each table has several files; and ways to damage one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.frames import CacheFrames
from pipeline.ingest import ingest
from pipeline.runner import run
from pipeline.schemas import TABLES
from pipeline.scorer import Loader
from pipeline.scores import EmbedFrames, ScoreFrames
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.store.health import manifests
from pipeline.variants import BuildVariants
from tests.clips import write_clip
from tests.curation_world import a_rule, choose
from tests.tables import content

CLIPS, EACH = 4, 2  # clips of two annotation files, questions on each
WORDS = ("half", "sight", "always", "never")


class Colours:
    """An encoder without a model: the mean of three parts of a picture, the lengths of a text's words."""

    context, frames_a_pass = 64, 16

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        parts = [part.mean((1, 2, 3)) for part in np.array_split(frames.astype(np.float32), 8, axis=2)]
        return _unit(np.stack(parts, axis=1))

    def encode_windows(self, windows: Sequence[str]) -> npt.NDArray[np.float32]:
        return _unit(np.array([[len(w) * (i + 1) % 7 + 1 for i in range(8)] for w in windows], np.float32))


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def colours(device: str) -> Colours:
    """What a stage loads."""
    return Colours()


LOADER = Loader(colours, "colours", "colours-1")


def stages(fps: float = 4.0, m: int = 3) -> list[Stage]:
    """All stages between ingest and select."""
    return [CacheFrames(fps=fps), EmbedFrames(LOADER), ScoreFrames(LOADER), BuildVariants(m=m, frames=4)]


def annotate(folder: Path) -> list[Path]:
    """Clips and two annotation files about them; a row of the first has no video."""
    files = []
    for half in range(2):
        rows = [{"id": "lost", "video": "none.mp4", "question": "where?", "answer": "here"}] * (1 - half)
        for clip in range(half * CLIPS // 2, (half + 1) * CLIPS // 2):
            write_clip(folder / f"{clip}.mp4", 30, tint=13 * clip)
            for k in range(EACH):
                row = {"id": f"{clip}-{k}", "video": f"{clip}.mp4", "question": f"{WORDS[clip]} what {k}?"}
                rows.append(row | {"options": ["red", "blue", "green", "white"], "answer": "B"})
        files.append(folder / f"part{half}.json")
        files[-1].write_text(json.dumps(rows))
    return files


def bring(store: Store, files: Sequence[Path]) -> None:
    """Every command of a user, over the files given."""
    for file in files:
        ingest(store, file, source_name=file.stem)
    for stage in stages():
        run(stage, store)
    choose(store, a_rule(None), name="d", tag=f"files-{len(files)}", views="variants", draws=4)


def everything(store: Store) -> dict[str, pa.Table]:
    """All tables and the tag, in an order that does not depend on how they came about."""
    found = {name: content(store, name) for name in TABLES}
    return found | {"curated": store.curated("d", "files-2"), "verdicts": store.verdicts("d", "files-2")}


def data_file(store: Store, name: str, place: int = -1) -> Path:
    """A data file of the newest version of a table, by its place in scan order."""
    import lance

    path = place_of(store, name)
    fragment = lance.dataset(str(path)).get_fragments()[place]
    return path / "data" / str(fragment.data_files()[0].path)


def place_of(store: Store, name: str) -> Path:
    """Where a table lies; "curated" and "verdicts" are those of the dataset `d`."""
    return store.path / name / "d" if name in ("curated", "verdicts") else store.table_path(name)


def newest_manifest(store: Store, name: str) -> Path:
    """The file of the newest version."""
    folder = place_of(store, name) / "_versions"
    number = manifests(place_of(store, name))[0]
    return next(p for p in folder.glob("*.manifest") if int(p.stem) in (number, (1 << 64) - 1 - number))


def flip(file: Path, place: int) -> None:
    """Turn one bit over."""
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)


def cut(file: Path) -> None:
    """Keep the first half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def replace(store: Store, name: str, filter: str, **columns: Any) -> None:
    """Other values in some rows, under the same fingerprint."""
    rows = store.table(name, filter=filter).to_pylist()
    store.delete(name, filter)
    store.append(name, pa.Table.from_pylist([row | columns for row in rows], schema=TABLES[name]))
