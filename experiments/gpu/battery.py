"""Measure on a GPU what this project decides by it, and check what only a GPU can show, in two calls of nine minutes.

    python experiments/gpu/battery.py 1     # first use, precisions, exactness, NCCL, the matrix of a step, an epoch
    python experiments/gpu/battery.py 2     # accuracy of runs side by side, detectors, tasks, workers, tests
    python experiments/gpu/battery.py 1 --short --accelerator cpu    # the same lines on a CPU, to check the battery

Each line has a time limit of its own; one that fails or exceeds it is a row of the table, which comes last. Outputs are
in $OUT, or a temporary directory.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from lines import CALLS
from runner import Battery


def main() -> None:
    """Run a call and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", type=int, choices=CALLS)
    parser.add_argument("--accelerator", default="gpu", choices=["gpu", "cpu"])
    parser.add_argument("--short", action="store_true", help="a few steps of everything")
    parser.add_argument("--only", help="lines whose name contains this")
    given = parser.parse_args()
    out = Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="battery-")).resolve()
    battery = Battery(out, given.accelerator, given.short)
    for name, seconds, run in CALLS[given.call]:
        if given.only is None or given.only in name:
            battery.line(name, seconds, lambda run=run: run(battery))
    (out / f"table-{given.call}.md").write_text(battery.table() + "\n")
    print(f"\noutputs in {out}\n\n{battery.table()}")
    sys.exit(any(outcome != "ok" for _, outcome, _, _ in battery.rows))


if __name__ == "__main__":
    main()
