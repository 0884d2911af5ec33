"""Compare the mean and std of images with those that a network was trained with."""

from typing import Any

from ghostexp.runs.directory import RunDirectory
from ghostexp.tasks.common import instantiate


def normalisation(config: instantiate.Config) -> tuple[Any, Any] | None:
    """Return mean and std of the images; None where a datamodule of another package does not tell."""
    datamodule: Any = instantiate.build_datamodule(config)
    try:
        mean, std = datamodule.mean_std()
    except ValueError:
        return None
    return tuple(mean), tuple(std)


def check_normalisation(run: RunDirectory, config: instantiate.Config) -> None:
    """Raise ValueError for other data than the run's that would have another mean and std, unless both are set."""
    before, now = run.read_config("run")["datamodule"], config["datamodule"]
    if before.get("_target_") == now.get("_target_") or None not in (now.get("mean"), now.get("std")):
        return
    theirs, ours = normalisation({**config, "datamodule": before}), normalisation(config)
    if theirs is not None and ours is not None and theirs != ours:
        mean, std = (f"[{','.join(map(str, values))}]" for values in theirs)
        raise ValueError(
            "datamodule.mean=null: the run's images have another mean and std than these data by default; "
            f"add datamodule.mean={mean} datamodule.std={std}"
        )
