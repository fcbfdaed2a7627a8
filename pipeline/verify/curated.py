"""Curated datasets: every tag can be read, holds what its verdicts say, and fits the frames that are cached."""

import polars as pl

from pipeline.schemas import CURATED, VERDICTS
from pipeline.store import Store
from pipeline.store.examined import Examined
from pipeline.store.health import TORN, examine
from pipeline.verify.findings import Finding, some
from pipeline.verify.tables import Tables, broken_files

STALE, UNEQUAL = "other frames", "unlike its verdicts"
BROKEN_TAG, LOST_TAG, ALONE = "broken tag", "unreadable tag", "no verdicts"


def check_curated(store: Store, tables: Tables) -> tuple[list[Finding], dict[str, Examined], set[str]]:
    """Findings about all curated datasets, the newest version of each of their tables, the videos that these need."""
    found: list[Finding] = []
    newest: dict[str, Examined] = {}
    needed: set[str] = set()
    for name in store.curated_names():
        read: dict[tuple[str, str], Examined] = {}
        for kind, place in (("curated", store.curated_at(name)), ("verdicts", store.verdicts_at(name))):
            table = f"{kind}/{name}"
            newest[table] = examine(place)
            found += broken_files(table, newest[table], place)
            tags = newest[table].tags()
            for tag, version in tags.items():
                read[kind, tag] = examine(place, version, digests=newest[table].digests)
            unread = newest[table].lost_tags()
            if unread:
                about = "these files do not say any more which version they name; select again makes the tag"
                found.append(
                    Finding(table, LOST_TAG, len(unread), some(unread), about, "select", unit="tags", aside=unread)
                )
            lost = [tag for tag in tags if read[kind, tag].broken]
            if lost:
                about = "files of these tags are broken or lost; select again makes the same tag"
                finding = Finding(table, BROKEN_TAG, len(lost), some(lost), about, "select", unit="tags", tags=lost)
                found.append(finding)
        found += _unequal(name, read)
        found += _stale(name, newest[f"curated/{name}"], tables, needed)
    return found, newest, needed


def _unequal(name: str, read: dict[tuple[str, str], Examined]) -> list[Finding]:
    """Tags whose samples are not those that their verdicts keep, and tags without verdicts."""
    wrong: list[str] = []
    alone: list[str] = []
    for kind, tag in read:
        pair = read.get(("curated", tag)), read.get(("verdicts", tag))
        if kind != "curated" or pair[0] is None or pair[0].broken or (pair[1] is not None and pair[1].broken):
            continue
        rows = pair[0].table(["sample_id"], CURATED)["sample_id"].to_pylist()
        if pair[1] is None:
            alone.append(tag)
            continue
        verdicts = pair[1].table(["sample_id", "reason"], VERDICTS)
        if sorted(rows) != sorted(r["sample_id"] for r in verdicts.to_pylist() if not r["reason"]):
            wrong.append(tag)
    about = "it does not hold exactly the samples that its verdicts keep, once each"
    table = f"curated/{name}"
    found = []
    if wrong:
        found.append(Finding(table, UNEQUAL, len(wrong), some(wrong), about, "select", unit="tags", tags=wrong))
    if alone:
        about = "their samples are whole; what became of the others is lost, and select again tells it"
        found.append(Finding(table, ALONE, len(alone), some(alone), about, unit="tags", wrong=False))
    return found


def _stale(name: str, examined: Examined, tables: Tables, needed: set[str]) -> list[Finding]:
    """Samples of the newest version whose frames are cached in another way now; notes the videos that it needs."""
    if any(broken.what == TORN for broken in examined.broken):
        return []
    rows = pl.from_arrow(examined.table(["sample_id", "video_id", "frames_fingerprint"], CURATED))
    assert isinstance(rows, pl.DataFrame)
    needed.update(rows["video_id"].to_list())
    frames = tables.frame("frames", ["video_id", "fingerprint"]).unique(["video_id"])
    there = rows.join(frames.select("video_id", "fingerprint"), on="video_id")
    keys = there.filter(pl.col("fingerprint") != pl.col("frames_fingerprint"))["sample_id"].sort().to_list()
    about = "their frames are cached in another way now, and training refuses them"
    return [Finding(f"curated/{name}", STALE, len(keys), some(keys), about, "select", unit="samples")] if keys else []
