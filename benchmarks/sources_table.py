"""What becomes of annotation files: samples, rows left out and rows repaired, by reason, as a table for people."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from pipeline.ingest import ingest
from pipeline.store import Store

COLUMNS = ("file", "source", "split", "questions", "samples", "rejected", "repaired")


def rows_of(files: list[Path]) -> list[dict[str, Any]]:
    """Ingest each file into a store of its own, and tell what came of it."""
    found = []
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            report = ingest(Store(folder, create=True), file)
        found.append(
            {
                "file": f"{file.parent.name}/{file.name}",
                "source": report.format,
                "split": report.split,
                "questions": report.rows,
                "samples": report.samples,
                "rejected": _counted(report.rejected, report.reasons),
                "repaired": _counted(report.repaired, report.repairs),
                "rows_per_s": round(report.rows / report.seconds),
            }
        )
    return found


def _counted(total: int, reasons: dict[str, int]) -> str:
    """ "6: 4 of one reason, 2 of another"; the reason alone when there is one."""
    if len(reasons) == 1:
        return f"{total} {next(iter(reasons))}"
    return f"{total}" + (": " + ", ".join(f"{n} {reason}" for reason, n in reasons.items()) if reasons else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources_table", description=__doc__, allow_abbrev=False)
    parser.add_argument("files", type=Path, nargs="+", help="annotation files of known sources")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    rows = rows_of(arguments.files)
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for row in rows:
        print("| " + " | ".join(f"{row[c]:,}" if isinstance(row[c], int) else str(row[c]) for c in COLUMNS) + " |")
    if arguments.json:
        print(json.dumps({"files": rows}))


if __name__ == "__main__":
    main()
