"""A curated dataset in another trainer's layout: what it can say goes in, what it cannot is counted and listed."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline import exports
from pipeline.errors import UserError
from pipeline.exports.common import CLIPS, FRAMES, Format, LeftOut, Row
from pipeline.exports.files import MANIFEST, as_json, complete_folder, write_jsonl
from pipeline.exports.media import VIEWS, Media
from pipeline.framereader import FrameReader
from pipeline.runner import Progress
from pipeline.store import Store

LEFT_OUT = "LEFT_OUT.jsonl"
_BATCH = 512  # samples that are turned into Python values at once


@dataclass(frozen=True)
class ExportReport:
    """What an export came to: samples = exported + left out; `rows` are more than `exported` with several views.

    `weights` counts exported samples whose weight is not 1 and that the format has no place for.
    """

    format: str
    dataset: str
    tag: str
    fingerprint: str
    medium: str
    view: str | None
    out: str
    samples: int
    exported: int
    rows: int
    left_out: dict[str, int]
    tasks: dict[str, int]
    weights: int
    usage: str
    command: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def export(
    store: Store,
    name: str,
    format: str,
    out: Path,
    *,
    tag: str | None = None,
    medium: str | None = None,
    view: str | None = None,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> ExportReport:
    """Write a curated dataset into the folder `out`, which appears when it is complete.

    Args:
        name, tag: of the dataset; no tag: its newest version.
        format: name of a format.
        medium: frames or clips; None: what the format is made for.
        view: whose frames: anchor (also None), importance, or all: a row for each view.
        overwrite: replace an earlier export in `out`.
        command: what the user typed, for the manifest.

    Raises:
        UserError: a bad parameter, `out` holds something else, or the format can say none of the samples.
    """
    chosen = exports.find(format)
    medium = _medium(chosen, medium)
    view = _view(medium, view)
    table, facts = store.curated(name, tag), store.facts(name, tag)
    videos = {row["video_id"]: (row["path"], row["duration_s"]) for row in _videos(store)}
    root = Path(os.path.abspath(out))
    lost: list[Row] = []
    tasks: Counter[str] = Counter()
    counts = Counter(rows=0, weights=0)

    with complete_folder(root, overwrite) as aside:
        reader = FrameReader(store) if medium == FRAMES else None
        media = Media(reader, videos, aside, root, view or "", chosen.embeds, chosen.links)

        def rows() -> Iterator[Row]:
            for batch in table.to_batches(_BATCH):
                for sample in batch.to_pylist():
                    try:
                        reason = chosen.refuse(sample, medium)
                        if reason:
                            raise LeftOut(reason)
                        written = [chosen.row(sample, shown) for shown in media.of(sample)]
                    except LeftOut as left:
                        about = {key: sample[key] for key in ("sample_id", "source", "task")}
                        lost.append({**about, "reason": left.reason, "message": str(left)})
                    else:
                        tasks[sample["task"]] += 1
                        counts["rows"] += len(written)
                        counts["weights"] += not chosen.weighted and sample["weight"] not in (None, 1.0)
                        yield from written
                    if progress:
                        progress.advance(1)

        if progress:
            progress.start(f"export {format}", table.num_rows)
        chosen.write(aside, root, rows(), medium)
        if progress:
            progress.stop()
        left_out = dict(sorted(Counter(entry["reason"] for entry in lost).items()))
        if not counts["rows"]:
            why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it is empty"
            raise UserError(
                f"0 of {table.num_rows} samples of {name!r} fit into {format} ({why})",
                "at least one has to",
                "choose another --format, --frames or --clips, or another --view",
            )
        report = ExportReport(
            format=format,
            dataset=name,
            tag=facts.get("tag", tag or ""),
            fingerprint=facts.get("fingerprint", ""),
            medium=medium,
            view=view,
            out=str(root),
            samples=table.num_rows,
            exported=sum(tasks.values()),
            rows=counts["rows"],
            left_out=left_out,
            tasks=dict(sorted(tasks.items())),
            weights=counts["weights"],
            usage=chosen.usage(root, medium),
            command=command,
        )
        write_jsonl(aside / LEFT_OUT, lost)
        (aside / "README.md").write_text(_readme(chosen, report, _card(store, report)), encoding="utf-8")
        (aside / MANIFEST).write_text(as_json(report.as_dict()) + "\n", encoding="utf-8")
    return report


def _medium(format: Format, medium: str | None) -> str:
    if medium is None:
        return format.media[0]
    if medium not in format.media:
        takes = "the frames of a view" if format.media == (FRAMES,) else "video files"
        raise UserError(f"--{medium} with {format.name}", f"{format.title} takes {takes}", f"--{format.media[0]}")
    return medium


def _view(medium: str, view: str | None) -> str | None:
    if medium == CLIPS:
        if view is not None:
            raise UserError(f"--view {view}", "a clip shows the whole video", "leave out --view, or say --frames")
        return None
    if view is not None and view not in VIEWS:
        raise UserError(f"--view {view}", f"one of {', '.join(VIEWS)}", "name one of them")
    return view or "anchor"


def _videos(store: Store) -> list[Row]:
    found: list[Row] = store.table("videos", ["video_id", "path", "duration_s"]).to_pylist()
    return found


def _card(store: Store, report: ExportReport) -> str:
    """The data card of the version that is exported; "" when it has none."""
    return store.card(report.dataset, report.tag) if report.tag else ""


def _readme(format: Format, report: ExportReport, card: str) -> str:
    """A readme whose yaml head tells the Hub's loaders which files are the data."""
    head, text = _split_head(card) if format.card else ({}, "")
    head["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": format.files}]}]
    left_out = "".join(f"- {count} left out: {reason}\n" for reason, count in report.left_out.items())
    shown = f"the frames of each sample's {report.view} view" if report.medium == FRAMES else "video files"
    if report.view == "all":
        shown = "the frames of all views, a row each"
    parts = [
        "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + "---\n",
        text or f"# {report.dataset}\n",
        "## This export\n",
        f"Curated dataset {report.dataset}, version `{report.tag}` ({report.fingerprint}), in the layout of "
        f"{format.title}: {report.exported} of {report.samples} samples as {report.rows} rows that show {shown}.\n",
        f"```\n{report.usage}\n```\n",
        (left_out and f"{left_out}\nEach is listed in {LEFT_OUT}.\n"),
    ]
    return "\n".join(part for part in parts if part)


def _split_head(card: str) -> tuple[dict[str, Any], str]:
    """The yaml head of a card and the text below it."""
    parts = card.split("---\n", 2)
    if len(parts) != 3 or parts[0].strip():
        return {}, card
    head: Mapping[str, Any] | None = yaml.safe_load(parts[1])
    return dict(head or {}), parts[2].lstrip("\n")
