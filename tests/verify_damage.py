"""Ways to damage a store, and what `verify` is to find for each."""

from collections.abc import Callable

import pyarrow as pa

from pipeline.framereader import FrameReader
from pipeline.schemas import TABLES
from pipeline.store import Store
from tests import verify_world as world

DERIVED = ("frames", "frame_embeddings", "frame_scores", "variants", "rollouts")


def video(store: Store, place: int = 0) -> str:
    return FrameReader(store).videos[place]


def flip_frame(store: Store) -> None:
    path, pages, _ = store.snapshot("frames").pages(0, "pixels")
    assert path == world.data_file(store, "frames", 0)
    world.flip(path, pages[0][0][0] + 5000)


def flip_length(store: Store) -> None:
    """In the bytes that say how long the first frame is: what a data file is recognised by."""
    path, pages, _ = store.snapshot("frames").pages(0, "pixels")
    world.flip(path, pages[0][0][0] + 1)


def flip_beside_pixels(store: Store) -> None:
    path, pages, _ = store.snapshot("frames").pages(0, "pixels")
    (start, size), _ = pages[0]
    world.flip(path, next(p for p in (start + size + 3, start - 3) if 0 <= p < path.stat().st_size))


def flip_in(name: str) -> Callable[[Store], None]:
    return lambda store: world.flip(world.data_file(store, name), 40)


def cut_in(name: str) -> Callable[[Store], None]:
    return lambda store: world.cut(world.data_file(store, name, 0))


def unlink_in(name: str) -> Callable[[Store], None]:
    return lambda store: world.data_file(store, name, 0).unlink()


def tear(name: str) -> Callable[[Store], None]:
    return lambda store: world.cut(world.newest_manifest(store, name))


def tear_all(name: str) -> Callable[[Store], None]:
    def damage(store: Store) -> None:
        for manifest in (world.place_of(store, name) / "_versions").glob("*.manifest"):
            manifest.write_bytes(b"")

    return damage


def flip_version(store: Store) -> None:
    world.flip(world.newest_manifest(store, "variants"), 60)


def cut_tag(store: Store) -> None:
    world.cut(store.curated_path("d") / "_refs" / "tags" / "files-2.json")


def double(name: str) -> Callable[[Store], None]:
    def damage(store: Store) -> None:
        rows = store.table(name)
        key = TABLES[name].names[0]
        first = rows[key][0].as_py()
        store.append(name, rows.filter(pa.compute.equal(rows[key], first)))

    return damage


def contradict(store: Store) -> None:
    row = store.table("rollouts").slice(0, 1).to_pylist()[0] | {"text": "another answer"}
    store.append("rollouts", pa.Table.from_pylist([row], schema=TABLES["rollouts"]))


def adopt(name: str, column: str) -> Callable[[Store], None]:
    """A row that refers to nothing."""

    def damage(store: Store) -> None:
        row = store.table(name).slice(0, 1).to_pylist()[0] | {column: "nobody"}
        store.append(name, pa.Table.from_pylist([row], schema=TABLES[name]))

    return damage


def drop_video(store: Store) -> None:
    store.delete("frames", f"video_id = '{video(store)}'")


def drop_frame(store: Store) -> None:
    store.delete("frames", f"video_id = '{video(store)}' AND index = 3")


def drop_embeddings(store: Store) -> None:
    store.delete("frame_embeddings", f"video_id = '{video(store)}'")


def drop_views(store: Store) -> None:
    sample = store.table("variants", ["sample_id"])["sample_id"][0].as_py()
    store.delete("variants", f"sample_id = '{sample}'")


def drop_view(store: Store) -> None:
    sample = store.table("variants", ["sample_id"])["sample_id"][0].as_py()
    store.delete("variants", f"sample_id = '{sample}' AND variant = 1")


def other_words(store: Store) -> None:
    sample = store.table("samples", ["sample_id"])["sample_id"][0].as_py()
    world.replace(store, "samples", f"sample_id = '{sample}'", question="what else?")


def other_times(store: Store) -> None:
    sample = store.table("variants", ["sample_id"])["sample_id"][0].as_py()
    world.replace(store, "variants", f"sample_id = '{sample}'", times=[0.25, 0.3, 0.5, 0.75])


def fewer_scores(store: Store) -> None:
    sample = store.table("frame_scores", ["sample_id"])["sample_id"][0].as_py()
    world.replace(store, "frame_scores", f"sample_id = '{sample}'", scores=[0.5])


DAMAGES: dict[str, tuple[Callable[[Store], None], set[tuple[str, str]]]] = {
    "a byte of a frame": (flip_frame, {("frames", "wrong checksum")}),
    "the length of a frame": (flip_length, {("frames", "wrong checksum")}),
    "a byte beside the pixels": (flip_beside_pixels, {("frames", "changed file")}),
    **{
        f"a byte of {n}": (flip_in(n), {(n, "changed file")}) for n in ("samples", "variants", "rollouts", "quarantine")
    },
    **{f"half of a file of {name}": (cut_in(name), {(name, "cut file")}) for name in ("videos", *DERIVED)},
    "a file of variants": (unlink_in("variants"), {("variants", "missing file")}),
    "a byte of curated": (flip_in("curated"), {("curated/d", "changed file"), ("curated/d", "broken tag")}),
    "half of verdicts": (cut_in("verdicts"), {("verdicts/d", "cut file"), ("verdicts/d", "broken tag")}),
    **{f"a torn version of {n}": (tear(n), {(n, "torn version")}) for n in ("samples", "frames", "variants")},
    "all versions of variants": (tear_all("variants"), {("variants", "torn version")}),
    "a bit of a version": (flip_version, {("variants", "torn version")}),
    "half of a tag": (cut_tag, {("curated/d", "unreadable tag")}),
    "a torn tag": (tear("curated"), {("curated/d", "torn version"), ("curated/d", "broken tag")}),
    **{f"rows of {n} twice": (double(n), {(n, "rows twice")}) for n in ("videos", "samples", *DERIVED, "quarantine")},
    "two answers to one draw": (contradict, {("rollouts", "rows twice")}),
    "views of nobody": (adopt("variants", "sample_id"), {("variants", "orphans")}),
    "scores of nobody": (adopt("frame_scores", "sample_id"), {("frame_scores", "orphans")}),
    "embeddings of nothing": (adopt("frame_embeddings", "video_id"), {("frame_embeddings", "orphans")}),
    "a video's frames": (drop_video, {("frames", "missing rows")}),
    "one frame": (drop_frame, {("frames", "not whole")}),
    "one view": (drop_view, {("variants", "not whole")}),
    "embeddings": (drop_embeddings, {("frame_embeddings", "missing rows")}),
    "views": (drop_views, {("variants", "missing rows")}),
    "other words": (other_words, {("samples", "changed rows")}),
    "other times": (other_times, {("variants", "do not fit")}),
    "fewer scores": (fewer_scores, {("frame_scores", "do not fit")}),
}
