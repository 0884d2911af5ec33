"""Run the lines of the battery, each under a time limit, and keep a row of each for the table."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SHORT_SECONDS = 400  # limit of a line with --short, on a CPU that is shared


class Battery:
    """Runs lines, each in a directory and under a time limit, and keeps a row of each for the table."""

    def __init__(self, out: Path, accelerator: str, is_short: bool) -> None:
        self.out, self.accelerator, self.is_short = out, accelerator, is_short
        self.rows: list[tuple[str, str, float, str]] = []
        self.environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "GHOSTEXP_OUTPUTS": str(out)}

    def line(self, name: str, seconds: float, run: Callable[[], str]) -> None:
        """Run a line; its note, or why it failed, is its row."""
        started = time.perf_counter()
        self.deadline = started + (SHORT_SECONDS if self.is_short else seconds)
        try:
            outcome, note = "ok", run()
        except subprocess.TimeoutExpired:
            outcome, note = "TIMEOUT", f"limit {seconds:.0f} s"
        except Exception as error:
            outcome, note = "FAILED", " ".join(str(error).split())[-300:]
        self.rows.append((name, outcome, time.perf_counter() - started, note))
        print(f"{name}: {outcome}, {self.rows[-1][2]:.1f} s, {note}", flush=True)

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own, which is ended as a whole."""
        return subprocess.Popen(
            command,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], code: int | None = 0) -> str:
        """Wait for a command until the line's limit; returns what it printed."""
        try:
            out, _ = process.communicate(timeout=max(1.0, self.deadline - time.perf_counter()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if code is not None and process.returncode != code:
            errors = [line for line in out.splitlines() if "error" in line.lower()]
            raise RuntimeError(f"exit code {process.returncode}: {(errors or out.splitlines() or ['no output'])[-1]}")
        return out

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of ghostexp on this battery's accelerator."""
        short = ["trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
        given = " ".join(arguments)
        short = [text for text in short if self.is_short and text.partition("=")[0] not in given]
        is_training = "task=" not in given and "resume=" not in given
        rest = [f"trainer.accelerator={self.accelerator}"] if "trainer.accelerator" not in given else []
        return [sys.executable, "-m", "ghostexp", *arguments, *rest, *(short if is_training else [])]

    def run(self, *arguments: str) -> str:
        """Run ghostexp and return what it printed."""
        return self.finish(self.start(self.command(*arguments)))

    def result(self, name: str) -> dict:
        """Return result.json of a run directory below the outputs."""
        return json.loads((self.out / name / "result.json").read_text())

    def table(self) -> str:
        """Return the rows of all lines as a table."""
        head = "| line | outcome | s | note |\n| --- | --- | --- | --- |\n"
        return head + "\n".join(
            f"| {name} | {outcome} | {seconds:.1f} | {note} |" for name, outcome, seconds, note in self.rows
        )
