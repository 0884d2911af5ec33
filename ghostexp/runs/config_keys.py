"""List the top-level config keys: which decide the result, and how run=, resume= and sweeps treat them."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class KeyRole:
    """Role of a top-level key.

    result: it is part of the fingerprint, so that resume= rejects a change.
    earlier: its value with run= and resume=: `fixed` is that of the earlier run, `override` the same with overrides,
    `command` that of the command.
    build: it changes what the check of a sweep builds. report: it is allowed with a report on a study.
    """

    result: bool
    earlier: Literal["fixed", "override", "command"]
    build: bool = True
    report: bool = False


KEYS = {
    "seed": KeyRole(result=True, earlier="fixed", build=False),
    "name": KeyRole(result=False, earlier="override", build=False, report=True),
    "model": KeyRole(result=True, earlier="fixed"),
    "datamodule": KeyRole(result=True, earlier="override"),
    "optimizer": KeyRole(result=True, earlier="fixed"),
    "scheduler": KeyRole(result=True, earlier="fixed"),
    "trainer": KeyRole(result=True, earlier="override"),
    "callbacks": KeyRole(result=True, earlier="override"),
    "logger": KeyRole(result=False, earlier="override", build=False),
    "task": KeyRole(result=False, earlier="command", report=True),
    "loss": KeyRole(result=True, earlier="fixed"),
    "metrics": KeyRole(result=True, earlier="fixed"),
    "monitor": KeyRole(result=True, earlier="fixed"),
    "lightning_module": KeyRole(result=True, earlier="fixed"),
    "channels_last": KeyRole(result=False, earlier="override"),
    "tf32": KeyRole(result=False, earlier="override"),
    "compile": KeyRole(result=False, earlier="override"),
    "threads": KeyRole(result=False, earlier="override", build=False),
    "output_dir": KeyRole(result=False, earlier="command", build=False, report=True),
    "data_dir": KeyRole(result=False, earlier="fixed"),
    "run": KeyRole(result=False, earlier="command"),
    "resume": KeyRole(result=False, earlier="command", build=False),
    "allow": KeyRole(result=False, earlier="command", build=False, report=True),
    "traceback": KeyRole(result=False, earlier="command", report=True),
}
ADDED_KEYS: dict[str, Any] = {
    "metrics": {},
    "monitor": None,
    "lightning_module": None,
}  # that configs of older runs lack
# Keys of a LightningDataModule of another package that the rest of the configuration refers to.
THIRD_PARTY_DATA_KEYS = ("num_classes", "in_chans", "image_size", "batch_size", "seed", "mean", "std", "class_names")
# No part of a run's config.
SWEEP_ONLY_KEYS: dict[str, Any] = {"n_jobs": None, "fail_fast": False, "dry_run": False, "search": None}
GROUPS = {  # groups of conf/ whose files may set any key, and Hydra's own configuration
    "experiment": KeyRole(result=False, earlier="fixed"),
    "study": KeyRole(result=False, earlier="fixed", report=True),
    "pretrained": KeyRole(result=False, earlier="fixed"),
    "debug": KeyRole(result=False, earlier="command", report=True),
    "hydra": KeyRole(result=False, earlier="command"),
}
# Below keys that decide the result, those that do not.
IGNORED_KEYS = frozenset(
    {
        *(f"datamodule.{key}" for key in ("root", "num_workers", "cache_dir", "download", "eval_batch_size")),
        *(
            f"callbacks.{key}"
            for key in (
                "save_every_n_epochs",
                "save_every_n_steps",
                "save_every_n_minutes",
                "min_seconds_between_saves",
                "batch_timeout",
                "progress",
            )
        ),
        *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "log_every_n_steps")),
        *(f"trainer.{key}" for key in ("benchmark", "deterministic", "detect_anomaly", "profiler")),
    }
)
# Packages whose targets a saved configuration may call, and whose parts keep what exact resume needs.
TRUSTED_PACKAGES = ("ghostexp", "torch", "torchvision", "lightning", "torchmetrics", "timm")
PLANS = ("model.plan", "model.backbone.plan")  # each one value, decided by its layers and not by its name
STUDY_TASKS = ("report", "dashboard")  # tasks that read many runs, and write beside them

RESULT_KEYS = tuple(key for key, role in KEYS.items() if role.result)
OVERRIDABLE_KEYS = tuple(key for key, role in KEYS.items() if role.earlier == "override")
COMMAND_KEYS = tuple(key for key, role in (KEYS | GROUPS).items() if role.earlier == "command")
BUILD_IRRELEVANT_KEYS = ("choices", *(key for key, role in KEYS.items() if not role.build))
REPORT_KEYS = tuple(key for key, role in (GROUPS | KEYS).items() if role.report)
