"""What the stages would do: rows made with other settings or from other inputs, and items that nobody made."""

from collections.abc import Sequence

from pipeline.runner import key_text
from pipeline.stage import Stage, literal
from pipeline.store import Store
from pipeline.verify.findings import OWNER, Finding, some

OUTDATED, UNMADE = "outdated", "not made yet"


def check_plans(store: Store, stages: Sequence[Stage], sound: set[str]) -> tuple[list[Finding], list[str]]:
    """Compare fingerprints with those that stages plan.

    Args:
        stages: with the settings that are in force.
        sound: tables of which nothing is wrong. A stage that reads or writes another one is not asked.

    Returns:
        findings, of which nothing is dropped: the stages do that; and which were not asked.
    """
    found: list[Finding] = []
    skipped: list[str] = []
    for stage in stages:
        if not {*stage.reads, stage.writes, "quarantine"} <= sound:
            skipped.append(f"fingerprints of {stage.writes} were not compared with the plan: first repair the tables")
            continue
        planned = {item.key: item.fingerprint for item in stage.plan(store)}
        done = store.done(stage.writes, stage.scope)
        other = sorted(key_text(key) for key, fingerprint in done if planned.get(key) != fingerprint)
        command = OWNER[stage.writes]
        if other:
            about = f"made with other settings, or from other inputs, than the last {command} had"
            found.append(Finding(stage.writes, OUTDATED, len(other), some(other), about, command, unit="items"))
        failed = store.table("quarantine", ["key"], f"NOT kept AND stage = {literal(stage.name)}")["key"].to_pylist()
        have = {key for key, _ in done}
        unmade = sorted({key_text(key) for key in planned if key not in have} - set(failed))
        if unmade:
            about = f"{command} has not come to them yet"
            row = Finding(stage.writes, UNMADE, len(unmade), some(unmade), about, command, unit="items", wrong=False)
            found.append(row)
    return found, skipped
