"""Whether a store is what was written, and whether its tables agree with each other; and what to do if not."""

from collections.abc import Callable, Sequence

from pipeline.runner import Progress
from pipeline.schemas import TABLES
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.store.examined import Examined
from pipeline.verify import references
from pipeline.verify.curated import check_curated
from pipeline.verify.findings import Finding as Finding
from pipeline.verify.findings import Verdict as Verdict
from pipeline.verify.frames import changed_videos, check_pixels, check_sums
from pipeline.verify.plans import check_plans
from pipeline.verify.repair import repair as repair
from pipeline.verify.tables import Tables, beside_broken, broken_files

UNVOUCHED = "no check holds"


def verify(
    store: Store,
    stages: Sequence[Stage] = (),
    *,
    frames: int | None = None,
    pixels: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verdict:
    """Check every table of a store. Writes nothing.

    Files come first: does the newest version open, is each file what was written. Then the rows of the whole files:
    none twice, none changed, none that refers to nothing or does not fit. Then pixels, curated datasets, and the plans
    of stages.

    Args:
        stages: with the settings in force; their plans are compared with the fingerprints of the rows.
        frames: compare so many frames with their checksums, drawn at random; None: all of them.
        pixels: decode so many frames again and compare them with their videos.
        seed: of what is drawn.
    """
    tables = Tables(store)
    verdict = Verdict(str(store.location))
    for name in TABLES:
        examined = tables.examined[name]
        verdict.findings += broken_files(name, examined, examined.place)
        _count(verdict, name, examined)

    def add(found: Sequence[Finding]) -> None:
        verdict.findings += [tables.drop(finding) for finding in found]

    add(beside_broken(tables))
    checks: list[Callable[[Tables], list[Finding]]] = [references.twice, references.contents, references.partial]
    for check in checks:
        add(check(tables))
    damaged, verdict.frames = check_sums(tables, frames, progress, seed)
    add(damaged)
    add(references.orphans(tables))
    curated, newest, needed = check_curated(store, tables)
    verdict.findings += curated
    for name, examined in newest.items():
        _count(verdict, name, examined)
    add(references.unfit(tables, needed))
    verdict.findings += _unvouched(tables)
    add(changed_videos(tables))
    if pixels:
        found, verdict.pixels, skipped = check_pixels(store, tables, pixels, seed)
        add([finding for finding in found if finding.what not in {f.what for f in verdict.findings}])
        verdict.skipped += skipped
    sound = set(TABLES) - {finding.table for finding in verdict.findings if finding.wrong}
    planned, skipped = check_plans(store, stages, sound)
    verdict.findings += planned
    verdict.skipped += skipped
    return verdict


def _count(verdict: Verdict, name: str, examined: Examined) -> None:
    if examined.dataset is not None:
        verdict.tables[name] = {"rows": examined.rows, "files": examined.files, "unsealed": examined.unsealed}


def _unvouched(tables: Tables) -> list[Finding]:
    """A note that duplicates or leaks were looked for must not stand beside a table that lost some of them."""
    if tables.whole("overlaps"):
        return []
    checks = tables.frame("overlap_checks", ["kind"])
    if not checks.height:
        return []
    drop = checks["_rowaddr"].to_numpy()
    about = "what was found was partly lost, so that nobody may rely on it: look again"
    where = ", ".join(checks["kind"].to_list())
    return [Finding("overlap_checks", UNVOUCHED, len(drop), where, about, "duplicates", drop=drop)]
