"""Run a command line on the pretended accelerator, in a process of its own, and count what each step costs."""

import io
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from ghostexp.runner.fork_server import Result, call_in_process, warm_up
from tests.pretended_device import NAME, counts, is_pretended, places, registered_device

MEMORY = 80 * 2**30


class PretendedAccelerator(Accelerator):
    """What Lightning expects of an accelerator."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return [0]

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}


class PretendedTrainer(pl.Trainer):
    """Lightning's Trainer on the pretended device; without inference mode, which wrapper tensors do not support."""

    def __init__(self, **arguments: Any) -> None:
        strategy = SingleDeviceStrategy(device=torch.device(NAME, 0))
        ours = {"accelerator": PretendedAccelerator(), "strategy": strategy, "devices": 1, "inference_mode": False}
        super().__init__(**arguments | ours)


class StepCounter(Callback):
    """Counts of each step: from one batch's start to the next one's, and of each evaluation batch likewise."""

    def __init__(self) -> None:
        self.steps: list[dict[str, int]] = []
        self.evaluations: list[dict[str, int]] = []
        self.before: Counter[str] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = None

    def on_train_batch_start(self, *_: Any) -> None:
        self._add(self.steps)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = None

    def on_validation_batch_start(self, *_: Any) -> None:
        self._add(self.evaluations)

    def _add(self, rows: list[dict[str, int]]) -> None:
        now = Counter(counts)
        if self.before is not None:
            rows.append(dict(now - self.before))
        self.before = now


@dataclass
class PretendedRun:
    """Exit code of a command line, and what was counted: of each training step, of each validation batch, in all."""

    code: int
    steps: list[dict[str, int]] = field(default_factory=list)
    evaluations: list[dict[str, int]] = field(default_factory=list)
    total: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    error: str = ""


def _run(arguments: tuple[str, ...]) -> PretendedRun:
    """Run a command line on the device, with its errors as text."""
    from ghostexp.__main__ import main
    from ghostexp.data import in_memory
    from ghostexp.tasks.common import instantiate, load_model

    counter = StepCounter()
    build_callbacks = instantiate.build_callbacks
    instantiate.build_callbacks = lambda *given, **named: [counter, *build_callbacks(*given, **named)]
    load_model.inference_device = lambda config: torch.device(NAME, 0)
    in_memory.device_memory = lambda device: MEMORY if is_pretended(device) else 0
    errors = io.StringIO()
    with registered_device(), redirect_stderr(errors):
        code = main([*arguments, "allow=[tests]", "traceback=true", f"trainer._target_={__name__}.PretendedTrainer"])
    return PretendedRun(code, counter.steps, counter.evaluations, dict(counts), dict(places), errors.getvalue())


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a process of its own, in which the device can be registered."""
    warm_up(["ghostexp.tasks.fit", "tests.pretended_run"])
    return call_in_process(function, *arguments)


def run_pretended(*arguments: str) -> PretendedRun:
    """Run a command line on the pretended device, in a process of its own."""
    run = in_own_process(_run, arguments)
    assert run.code == 0, run.error
    return run
