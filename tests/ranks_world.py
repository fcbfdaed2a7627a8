"""Commands of strive-train one after the other in the processes of one launch: starting these costs more than a run.

python -m tests.ranks_world '[["run", "--out", "a"], ["sft", "--out", "b"]]'
"""

import json
import os
import sys
from collections.abc import Sequence

from cli.train import app


def commands(lines: Sequence[Sequence[str]]) -> None:
    """Run each to its end."""
    for words in lines:
        app(list(words), standalone_mode=False)


if __name__ == "__main__":
    commands(json.loads(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # as the command does: threads of native libraries may still read ahead
