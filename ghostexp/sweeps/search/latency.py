"""Measure the latency of trials: once for each network, in turn with the network of the first trial."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ghostexp.errors import format_error
from ghostexp.runner.fork_server import call_quietly
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.provenance import cpu
from ghostexp.runs.text_files import write_json
from ghostexp.sweeps.jobs import SweepJob

OF_IMAGES = ("in_chans", "num_classes", "image_size")
Measured = dict[str, Any]  # the content of latency.json


class Latencies:
    """Latencies of a search's networks on this machine, each in the directory of a trial."""

    def __init__(self, directory: Path) -> None:
        """Read what was measured before; raises ValueError if that was another machine."""
        runs = [RunDirectory(path.parent) for path in sorted(directory.glob("*/latency.json"))]
        self.known: list[tuple[Mapping[str, Any], Measured]] = [  # configurations, the first is the reference
            (run.read_config(), measured) for run in runs if run.config.is_file() and (measured := run.read_latency())
        ]
        self.known.sort(key=lambda pair: pair[1]["reference"] is not None)
        self.hardware = cpu().rpartition(" (")[0]  # without the number of cores
        others = [measured["hardware"] for _, measured in self.known if measured["hardware"] != self.hardware]
        if others:
            raise ValueError(
                f"search.cost=latency_ms: {directory} has latencies of another machine ({others[0]}, this one is "
                f"{self.hardware}); name=... starts a new search"
            )

    def provide(self, job: SweepJob) -> None:
        """Write a trial's latency into its directory; of a network that another trial has, that of the other.

        Raises ValueError: it cannot be measured.
        """
        network = _digest(job.config)
        found = next((measured for _, measured in self.known if measured["network"] == network), None)
        if found is None:
            reference, before = self.known[0] if self.known else (None, {"latency_ms": 1.0, "network": None})
            found, error = call_quietly(_call, "measure_latency", job.config, reference, before["latency_ms"])
            if error is not None:
                raise ValueError(f"search.cost=latency_ms: cannot be measured ({error})")
            found |= {"hardware": self.hardware, "network": network, "reference": before["network"]}
        self.known.append((job.config, found))
        job.run.path.mkdir(parents=True, exist_ok=True)
        write_json(job.run.latency, found)


def check_measurable(config: Mapping[str, Any]) -> None:
    """Raise ValueError for a network whose latency is none of its own."""
    _, error = call_quietly(_call, "check_measurable", config)
    if error is not None:
        raise ValueError(error)


def _digest(config: Mapping[str, Any]) -> str:
    """Return a text that is equal for configurations of one network."""
    parts = [config["model"], [config["datamodule"].get(key) for key in OF_IMAGES]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _call(name: str, *arguments: Any) -> tuple[Any, str | None]:
    """Call a function of the task in this new process; returns its result, or what is wrong."""
    try:
        return getattr(importlib.import_module("ghostexp.tasks.common.image_latency"), name)(*arguments), None
    except Exception as error:
        return {}, format_error(error)
