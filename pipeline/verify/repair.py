"""Take away what a check found to be wrong, and only that; the next run of its stage makes it again."""

import numpy as np

from pipeline.store import Location, Store
from pipeline.store.health import drop_fragments, forget_tag, set_aside
from pipeline.store.rows import drop_rows
from pipeline.verify.findings import Verdict

ASIDE = "aside"  # folder of a store for files that were torn


def repair(store: Store, verdict: Verdict) -> list[str]:
    """Do what the findings of a check ask for.

    Each step is one commit or one rename, so that a kill between two of them leaves less to do, and nothing else.

    Args:
        verdict: of this store, which nobody has written to since.

    Returns:
        what was done, a line for each step.

    Raises:
        UserError: another process is writing.
    """
    done: list[str] = []
    with store.writing():
        for finding in verdict.findings:
            place = place_of(store, finding.table)
            for name in finding.aside:
                at = set_aside(place, name, store.location / ASIDE / finding.table)
                done.append(f"{finding.table}: {name if name != '.' else place.name} moved to {at}")
            for tag in finding.tags:
                forget_tag(place, tag)
                done.append(f"{finding.table}: tag {tag} taken away")
        for finding in verdict.findings:  # before rows: Lance looks for rows in every file
            if finding.fragments:
                drop_fragments(place_of(store, finding.table), finding.fragments)
                done.append(f"{finding.table}: {finding.count} rows of {len(finding.fragments)} files dropped")
        for table in dict.fromkeys(finding.table for finding in verdict.findings if len(finding.drop)):
            rows = [finding.drop for finding in verdict.findings if finding.table == table]
            addresses = np.unique(np.concatenate(rows))
            drop_rows(place_of(store, table), addresses)
            done.append(f"{table}: {len(addresses)} rows dropped")
    return done


def place_of(store: Store, table: str) -> Location:
    """Where a table of a finding lies."""
    kind, _, name = table.partition("/")
    if kind == "curated":
        return store.curated_at(name)
    return store.verdicts_at(name) if kind == "verdicts" else store.table_at(kind)
