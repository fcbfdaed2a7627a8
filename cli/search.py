"""search, duplicates and leaks: parse, call, print. Registered by cli.data."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import toyworld
from cli import output
from cli.options import STORE, Device, Json, StorePath
from pipeline.errors import UserError
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.overlaps import Found

Model = Annotated[
    str | None,
    typer.Option("--model", help="Scorer whose embeddings are used, as for score-frames. Default: the one there is."),
]
VideoThreshold = Annotated[
    float,
    typer.Option("--video-threshold", help="Least likeness of two videos; the default is measured on toy clips."),
]
QuestionThreshold = Annotated[float, typer.Option("--question-threshold", help="Least likeness of two questions.")]
Limit = Annotated[int, typer.Option("--limit", help="Pairs shown at most; all are stored.", min=0)]
VIDEOS, QUESTIONS = 0.955, 0.85


def search(
    text: Annotated[str, typer.Argument(help='What to look for, e.g. "a person opens a door".')],
    store: StorePath = STORE,
    top: Annotated[int, typer.Option("--top", help="Moments at most.", min=1)] = 12,
    gap: Annotated[
        float, typer.Option("--gap", help="Frames of one video closer than so many seconds are one moment.", min=0)
    ] = 2.0,
    out: Annotated[Path | None, typer.Option("--out", help="Also draw a contact sheet into this PNG file.")] = None,
    exact_limit: Annotated[
        int | None,
        typer.Option("--exact-limit", help="More frames than this are searched by an approximate index.", min=0),
    ] = None,
    model: Model = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find the moments that fit a text best, over all cached frames."""
    if not text.strip():
        raise UserError(repr(text), "a text to look for", 'strive-data search "a person opens a door"')
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}", "its folder does not exist", "name a file in a folder that does")
    from pipeline import moments
    from pipeline import search as frames
    from pipeline.framereader import FrameReader
    from pipeline.scorer import open_clip_loader
    from trainer.device import resolve_device

    opened = Store(store)
    loader = open_clip_loader(model or str(toyworld.CLIP))
    label = frames.pick_scorer(opened, loader.label if model else None, loader.label)
    if label != loader.label:
        other = label or "none yet"
        next_command = "say --model" if label else "strive-data score-frames"
        raise UserError(f"scorer {loader.label}", f"the frames of this store are embedded by {other}", next_command)
    encoder = loader.load(resolve_device(device))
    index = frames.open_index(
        opened,
        frames.embedded(opened, label),
        lambda texts: moments.encode_samples(encoder, texts),
        frames.EXACT_LIMIT if exact_limit is None else exact_limit,
        lambda count: output.note(f"building the index of {count} frames; it is kept"),
    )
    reader = FrameReader(opened)
    rows = opened.table("videos", ["video_id", "path"]).to_pylist()
    begun = time.perf_counter()
    query = moments.encode_query(encoder, text)
    hits = moments.find(index, reader, {row["video_id"]: row["path"] for row in rows}, query, top, gap)
    seconds = time.perf_counter() - begun
    if out is not None and hits:
        _draw(reader, hits, text, out)
    if as_json:
        recall = asdict(index.recall) if index.recall else None
        facts = {"scorer": label, "frames": len(index), "recall": recall, "seconds": seconds}
        drawn = str(out) if out is not None and hits else None
        output.print_json({"text": text, "hits": [asdict(hit) for hit in hits], "sheet": drawn} | facts)
        return
    if not hits:
        print("nothing was found")
        return
    found = [[hit.score, hit.time_s, hit.path, hit.video_id] for hit in hits]
    output.print_table(f"{text!r}", ["cosine", "second", "path", "video"], found)
    how = "exact"
    if index.recall:
        measured = f"measured on {index.recall.queries} {index.recall.of}"
        how = f"approximate, recall@{frames.RECALL_AT} {index.recall.value:.3f} {measured}"
    output.note(f"{len(index)} frames, {how}; {1000 * seconds:.0f} ms" + (f"; drawn: {out}" if out else ""))


def duplicates(
    store: StorePath = STORE,
    video_threshold: VideoThreshold = VIDEOS,
    question_threshold: QuestionThreshold = QUESTIONS,
    model: Model = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Find near-duplicate videos, and near-duplicate questions on one video, inside each split."""
    from pipeline import duplicates as near

    opened = Store(store)
    found = near.duplicates(opened, _label(opened, model), video_threshold, question_threshold, output.Bar())
    _report(opened, found, ("keep", "near-duplicate"), limit, as_json, store)


def leaks(
    against: Annotated[
        list[str],
        typer.Option("--against", help="Evaluation splits or datasets, e.g. val,test; may be repeated."),
    ],
    more: Annotated[list[str] | None, typer.Argument(help="More of them.")] = None,
    store: StorePath = STORE,
    video_threshold: VideoThreshold = VIDEOS,
    question_threshold: QuestionThreshold = QUESTIONS,
    model: Model = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Find videos and questions of evaluation sets that also stand in training data."""
    from pipeline import leaks as shared

    names = [name.strip() for word in [*against, *(more or [])] for name in word.split(",") if name.strip()]
    opened = Store(store)
    label = _label(opened, model)
    found = shared.leaks(opened, names, label, video_threshold, question_threshold, output.Bar())
    _report(opened, found, ("training", "evaluation"), limit, as_json, store)


def _label(store: Store, model: str | None) -> str:
    """The embeddings to compare videos by; "" when there are none, which is said."""
    from pipeline.scorer import resolve
    from pipeline.search import pick_scorer

    label = pick_scorer(store, resolve(model).label if model else None, resolve(str(toyworld.CLIP)).label)
    if not label:
        output.note("no frames are embedded: videos are compared by content only; strive-data score-frames embeds them")
    return label


def _report(store: Store, found: "Found", sides: tuple[str, str], limit: int, as_json: bool, place: str) -> None:
    from pipeline import overlaps

    overlaps.write(store, found)
    store.remember(output.typed("strive-data"))
    kind, counts = found.recipe.kind, found.counts()
    next_command = f"strive-data select --exclude {kind} --store {place}"
    if as_json:
        pairs = [asdict(overlap) for overlap in found.overlaps]
        facts = {"recipe": asdict(found.recipe), "videos": found.videos, "samples": found.samples}
        output.print_json(
            {"counts": counts, "overlaps": pairs, **facts, "left_out": found.left_out, "next": next_command}
        )
        return
    names = {row["video_id"]: row["path"] for row in store.table("videos", ["video_id", "path"]).to_pylist()}
    asked = {row["sample_id"]: row["question"] for row in store.table("samples", ["sample_id", "question"]).to_pylist()}
    shown = sorted(found.overlaps, key=lambda overlap: (overlap.of != "video", -overlap.similarity))
    for of, name_of in (("video", names), ("question", asked)):
        rows: list[list[Any]] = [
            [overlap.similarity, overlap.by, name_of.get(overlap.a, overlap.a), name_of.get(overlap.b, overlap.b)]
            for overlap in shown
            if overlap.of == of
        ][:limit]
        if rows:
            output.print_table(f"{of}s", ["likeness", "by", *sides], rows)
    listed = ", ".join(f"{count} {key}" for key, count in counts.items()) or "none found"
    output.print_summary(
        kind, f"{found.samples} samples on {found.videos} videos", listed, found.left_out, next_command
    )


def _draw(reader: Any, hits: Sequence[Any], text: str, out: Path) -> None:
    from pipeline.contactsheet import Tile, contact_sheet

    tiles = [
        Tile(
            reader.read(hit.video_id, [hit.index])[0],
            f"{_clock(hit.time_s)} · {hit.score:.3f}",
            Path(hit.path).name or hit.video_id,
        )
        for hit in hits
    ]
    contact_sheet(tiles, text, out)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}:{minutes:02d}:" if hours else f"{minutes}:") + f"{rest:04.1f}"
