"""Trials without a training: run directories whose figures are a function of the values."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.trials import FOLDER, SearchRecord
from ghostexp.sweeps.search.journal import Journal
from ghostexp.sweeps.search.sampler import Sampler
from ghostexp.sweeps.search.space import Dimension, Values, read_dimension
from ghostexp.sweeps.search.trial_search import Step, TrialSearch

SPACE = ("lr=tag(log,interval(0.01,1))", "wd=choice(0.1,0.2)")
RECORD = SearchRecord("random", 0, {}, {"": []}, "val/acc1", "maximize", 9, [1, 3], 3, "final", trials=9, seeds=[0])
Figure = Callable[[Values, int, int], float]  # of values, seed and epoch


def dimensions(*texts: str) -> list[Dimension]:
    """Read a space."""
    return [read_dimension(OverridesParser.create().parse_override(text)) for text in texts]


def accuracy(values: Values, seed: int, epoch: int) -> float:
    """Return a figure that is best at lr = 0.1 and rises with the epochs."""
    return 90 - 10 * abs(math.log10(float(values["lr"])) + 1) + epoch + 0.1 * seed


class FakeSearch:
    """A search on one slot, or on several, whose steps are written and not trained."""

    def __init__(self, directory: Path, figure: Figure = accuracy, **changes: object) -> None:
        self.directory, self.figure = directory, figure
        self.record = replace(RECORD, **changes)  # pyright: ignore[reportArgumentType]
        (directory / FOLDER).mkdir(parents=True, exist_ok=True)
        sampler = Sampler(self.record, "", dimensions(*SPACE), startup=3)
        self.search = TrialSearch(directory, "", self.record, sampler)
        self.journal = Journal(directory / FOLDER, sampler)
        self.search.attributes.update(self.journal.restore())
        self.search.load()
        self.journal.update(self.search.observed())

    def start(self, budget: float = math.inf) -> Step | None:
        """Start the next step."""
        step = self.search.next(lambda epochs: epochs <= budget)
        if step is not None:
            self.search.started(step)
            self.journal.update(self.search.observed())
            run = RunDirectory(self.directory / str(step.name))
            run.write_config({"task": {"name": "fit"}, "seed": step.name.seed})
            (run.path / ".hydra").mkdir(exist_ok=True)
            lines = [f"{key}={text}" for key, text in step.values.items()]
            (run.path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(lines))
        return step

    def train(self, step: Step, is_killed: bool = False) -> None:
        """Write what a training leaves: all of its epochs, or one if it is killed, or none if it has only one."""
        run = RunDirectory(self.directory / str(step.name))
        last = step.until or self.record.epochs
        if is_killed:
            last -= max(1, step.epochs - 1)
        rows = [f"{epoch},{epoch},{self.figure(step.values, step.name.seed, epoch)}\n" for epoch in range(1, last + 1)]
        run.metrics.write_text("step,epoch,val/acc1\n" + "".join(rows))
        if not is_killed and step.until is None:
            cost = round(1e6 * float(step.values["lr"]))
            run.write_result({"metrics": {"test": {"test/acc1": 50.0}}, "macs": cost})

    def end(self, step: Step) -> None:
        """Read what a step has come to."""
        self.search.ended(step.name)
        self.journal.update(self.search.observed())

    def run(self, most: int = 1000) -> list[str]:
        """Run steps one after another; returns their names and last epochs."""
        done = []
        while len(done) < most and (step := self.start()):
            self.train(step)
            self.end(step)
            done.append(f"{step.name} {step.until or self.record.epochs}")
        return done

    def spend(self, budget: int) -> int:
        """Run steps one after another within a budget of epochs; returns those that they took."""
        spent = 0
        while step := self.start(budget=budget - spent):
            spent += step.epochs
            self.train(step)
            self.end(step)
        return spent

    def trials(self) -> dict[int, Values]:
        """Return the values of all trials by number."""
        return dict(sorted(self.search.values.items()))
