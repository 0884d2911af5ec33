"""Time several functions in turn, so that other work on the machine affects all alike."""

import math
import time
from collections.abc import Callable, Mapping

import torch

Step = Callable[[], object]
Clock = Callable[[], float]  # returns seconds
SAMPLE_SECONDS = 0.02  # a fast function runs several times for one sample


def alternate(
    steps: Mapping[str, Step],
    rounds: int,
    device: torch.device,
    sample_seconds: float | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Measure the milliseconds of each function, a sample per round; each round runs all, one after the other.

    A first call of each warms up, and compiles. A sample is the mean over as many calls as fill `sample_seconds`, by
    default SAMPLE_SECONDS.
    """
    for step in steps.values():
        step()
    seconds = SAMPLE_SECONDS if sample_seconds is None else sample_seconds
    counts = {name: _count(step, device, seconds, clock) for name, step in steps.items()}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            samples[name].append(milliseconds(step, counts[name], device, clock) / counts[name])
    return samples


def quiet_clock() -> Clock:
    """Return the clock: on one thread that of the processor's time, which other work on the machine changes less."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _count(step: Step, device: torch.device, seconds: float, clock: Clock) -> int:
    """Compute the calls per sample; the measurement is a second warm-up."""
    once = min(milliseconds(step, 1, device, clock) for _ in range(2))
    return max(1, math.ceil(1000 * seconds / once))


def milliseconds(step: Step, count: int, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Time several calls: by events on a GPU, by the clock elsewhere.

    Torch's benchmark.Timer warms up before every measurement, which triples the time of a slow function.
    """
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.device(device):  # events are of the current device
            start.record()
            for _ in range(count):
                step()
            end.record()
            end.synchronize()
        return start.elapsed_time(end)
    begin = clock()
    for _ in range(count):
        step()
    return 1000 * (clock() - begin)
