"""The small world that the storm disturbs: videos and questions, stores before and after each stage, and the zygote."""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.store import Store
from tests.clips import damage, write_clip
from tests.faults.tally import Tables, Tally, tables_of
from tests.toy_store import a_store
from toyworld import dataset

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = "tests.faults.work"
PRELOADED = (
    *("torch", "open_clip", "accelerate", "safetensors.torch", "transformers.modeling_layers", "peft", "decord", "av"),
    *("transformers.models.qwen3_vl.modeling_qwen3_vl", "transformers.models.qwen3_vl.processing_qwen3_vl", "openai"),
    *(
        "pyarrow.dataset",
        "pandas",
        "polars",
        "PIL.Image",
        "rich.table",
        "typer",
        "yaml",
        "faiss",
        "hypothesis",
        "pytest",
    ),
)
"""What the zygote imports once: everything heavy but Lance."""

CLIPS = 4
STAGES = ("ingest", "cache_frames", "score_frames", "build_variants", "select")


class World:
    """Stores before and after each stage, what undisturbed work leaves in them, and a zygote that works.

    Attributes:
        folder: where everything lies. videos: annotations and videos that ingest reads. toy: a store to train on.
    """

    def __init__(self, folder: Path, zygote: "subprocess.Popen[str]") -> None:
        self.folder, self._zygote = folder, zygote
        self.until = math.inf  # on the monotonic clock: when a fault has been let loose long enough
        # What processes say goes through a pipe: a limit on the size of files must not hit it.
        self._said: deque[str] = deque(maxlen=200)
        threading.Thread(target=self._listen, daemon=True).start()
        self.videos = folder / "world"
        self._after: dict[str, Tables] = {}
        self._seconds: dict[tuple[str, int], float] = {}
        self._toy: Path | None = None
        self._trials = 0

    def enough(self, tally: Tally, times: int) -> bool:
        """Whether a fault took place so many times, or at least once and its time is up."""
        return tally.tried >= times or (tally.tried > 0 and time.monotonic() > self.until)

    def call(self, function: str, *arguments: Any, **how: Any) -> dict[str, Any]:
        """Run a function of `tests.faults.work` in a process of its own; see the zygote for what may happen to it."""
        asked = {"module": WORK, "function": function, "arguments": list(arguments), **how}
        assert self._zygote.stdin and self._zygote.stdout
        self._zygote.stdin.write(json.dumps(asked) + "\n")
        self._zygote.stdin.flush()
        answer = self._zygote.stdout.readline()
        assert answer, f"the zygote has died: {self.said()}"
        found: dict[str, Any] = json.loads(answer)
        return found

    def to_the_end(self, function: str, *arguments: Any, **how: Any) -> float:
        """The same, undisturbed: it has to end well. The seconds that it worked."""
        found = self.call(function, *arguments, **how)
        assert found["codes"] == [0], f"{function} ended with {found['codes']}: {self.said()}"
        return float(found["seconds"])

    def _listen(self) -> None:
        assert self._zygote.stderr
        self._said.extend(self._zygote.stderr)

    def said(self, most: int = 3000) -> str:
        """The last that processes have written."""
        return "".join(self._said)[-most:]

    def fresh(self, stage: str) -> Path:
        """A new copy of the store as it is before a stage."""
        return self._copy(self._before(stage))

    def whole(self) -> Path:
        """A new copy of the store with all stages done."""
        self.after(STAGES[-1])
        return self._copy(self.folder / "stores" / "done")

    def after(self, stage: str) -> Tables:
        """The tables of a store in which a stage has ended, undisturbed."""
        if stage not in self._after:
            place = STAGES.index(stage)
            target = self.folder / "stores" / (STAGES[place + 1] if place + 1 < len(STAGES) else "done")
            work = self.fresh(stage)
            self._seconds[stage, 0] = self.to_the_end(stage, str(work), str(self.videos))
            self._after[stage] = tables_of(Store(work))
            work.rename(target)
        return self._after[stage]

    def seconds(self, stage: str, *more: Any) -> float:
        """The seconds that a stage works, undisturbed."""
        key = (stage, int(more[0]) if more else 0)
        if key not in self._seconds:
            work = self.fresh(stage)
            self._seconds[key] = self.to_the_end(stage, str(work), str(self.videos), *more)
            shutil.rmtree(work)
        return self._seconds[key]

    @property
    def toy(self) -> Path:
        if self._toy is None:
            self._toy = a_store(self.folder / "toy", clips=2).path
        return self._toy

    def place(self) -> Path:
        """A path that is free."""
        self._trials += 1
        return self.folder / f"trial{self._trials}"

    def _before(self, stage: str) -> Path:
        place = STAGES.index(stage)
        if place:
            self.after(STAGES[place - 1])
        return self.folder / "stores" / stage

    def _copy(self, store: Path) -> Path:
        return Path(shutil.copytree(store, self.place()))


def _write(folder: Path) -> None:
    """Toy clips with their questions, a damaged clip, of which frames are left out, and rows that become no samples."""
    dataset.write(folder, CLIPS, 0, "train", per_clip=4)
    damage(write_clip(folder / "sound.mp4", 40), folder / "videos" / "other.mp4", [(0.4, 0.6)])
    rows = [{"video": "other.mp4", "question": "what is it?", "answer": "a number"}]
    rows += [{"video": name, "question": "what?", "answer": "x"} for name in ("gone.mp4", "../other.mp4")]
    (folder / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "train.manifest.json").unlink()


@contextmanager
def a_world(preloaded: Sequence[str] = PRELOADED) -> Iterator[World]:
    """A world in a temporary folder, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        folder = Path(name)
        (folder / "world").mkdir()
        _write(folder / "world")
        (folder / "stores").mkdir()
        Store(folder / "stores" / STAGES[0], create=True)
        words = [sys.executable, "-m", "tests.faults.zygote", ",".join(preloaded)]
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words, cwd=ROOT, env=os.environ | threads, text=True, errors="replace", stdin=pipe, stdout=pipe, stderr=pipe
        ) as zygote:
            try:
                yield World(folder, zygote)
            finally:
                zygote.kill()
