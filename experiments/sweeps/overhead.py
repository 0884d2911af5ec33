"""Compare a sweep with its jobs one after another, and measure the overhead per job.

python experiments/sweeps/overhead.py [--epochs 20]

18 jobs, Ghost-ResNet-20 at s = 2, 3, 4 with six seeds on the digits, each on one thread: first as one command,
`python -m ghostexp -m ...`, with its imports and its checks; then one after another in this process, after all imports.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ghostexp.runs.directory import RunDirectory

SWEEP = ("model.ratio=2,3,4", "seed=range(0,6)", "threads=1", "callbacks.progress=false", "name=sweep")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    sweep = (*SWEEP, f"trainer.max_epochs={parser.parse_args().epochs}")
    with tempfile.TemporaryDirectory() as folder:
        together, alone = Path(folder, "together"), Path(folder, "alone")
        command = [sys.executable, "-m", "ghostexp", "-m", *sweep]
        started = time.time()
        subprocess.run(command, env=os.environ | {"GHOSTEXP_OUTPUTS": str(together)}, check=True)
        ended = time.time()
        runs = sorted(together.glob("sweep/*/result.json"))
        first = min(run.with_name("config.yaml").stat().st_mtime for run in runs)
        results = [RunDirectory(run.parent).read_result() or {} for run in runs]
        one_by_one = sum(_again(RunDirectory(run.parent), alone / run.parent.name) for run in runs)
        equal = sum(
            run.with_name("metrics.csv").read_bytes() == (alone / run.parent.name / "metrics.csv").read_bytes()
            for run in runs
        )
    training = [result["train_seconds"] for result in results]
    n_jobs = min(len(os.sched_getaffinity(0)), len(runs))
    beside = (n_jobs * (ended - first) - sum(result["wall_seconds"] for result in results)) / len(runs)
    print(f"{len(runs)} jobs, training of each: {min(training):.1f} to {max(training):.1f} s, {n_jobs} at a time")
    print(f"one after another, without imports: {one_by_one:.1f} s")
    took = ended - started
    print(f"as a sweep, with everything:        {took:.1f} s, {one_by_one / took:.2f} times as fast")
    print(f"beside a job's own work:            {beside:.2f} s a job; {first - started:.1f} s before the first")
    print(f"bit-identical metrics.csv:          {equal} of {len(runs)}")


def _again(run: RunDirectory, folder: Path) -> float:
    """Repeat a run in this process; return the seconds."""
    from ghostexp.runner.execute import execute

    config = run.read_config() | {"resume": None}
    again = RunDirectory(folder)
    again.write_config(config)
    started = time.perf_counter()
    assert execute(config, again) == 0
    return time.perf_counter() - started


if __name__ == "__main__":
    import torch  # noqa: F401

    import ghostexp.data.datasets.digits
    import ghostexp.models.ghostify
    import ghostexp.tasks.fit  # noqa: F401

    main()
