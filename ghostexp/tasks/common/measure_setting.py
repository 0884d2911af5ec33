"""Build how `task=plan` measures layers and networks: device, precision, memory format, compilation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ghostexp.analysis.placement import Setting
from ghostexp.tasks.common.acceleration import compile_network
from ghostexp.tasks.common.instantiate import Config
from ghostexp.tasks.common.load_model import inference_device

MIXED = {"16-mixed": torch.float16, "16": torch.float16, "bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16}
TRUE = {"32-true": torch.float32, "32": torch.float32, "16-true": torch.float16, "bf16-true": torch.bfloat16}
TRUE |= {"64-true": torch.float64, "64": torch.float64}
MANY = 100_000  # forms of layers that are compiled


def build_setting(config: Config) -> Setting:
    """Build the setting of a configuration; raises ValueError for a precision that only a Trainer has."""
    device, precision = inference_device(config), str(config["trainer"]["precision"])
    if precision not in MIXED | TRUE:
        raise ValueError(f"trainer.precision={precision}: task=plan must have one of {', '.join([*MIXED, *TRUE])}")
    dtype = TRUE.get(precision, torch.float32)
    if config["compile"]:
        _compile_without_limit()
    layout = torch.channels_last if config["channels_last"] else torch.contiguous_format

    def prepare(module: nn.Module) -> nn.Module:
        module = module.to(device, dtype).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        compile_network(module, config["compile"])
        return module

    return Setting(
        config["task"]["batch_size"] or config["datamodule"]["batch_size"],
        config["task"]["mode"] == "training",
        device,
        dtype,
        config["channels_last"],
        prepare,
        _autocast(device, precision),
    )


def _compile_without_limit() -> None:
    """Let torch.compile compile every layer: they share the code of `nn.Module`, of which it compiles eight forms."""
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = MANY


def _autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager]:
    if precision not in MIXED:
        return nullcontext
    return lambda: torch.autocast(device.type, MIXED[precision])


def describe_setting(config: Config, info: dict[str, Any]) -> str:
    """Describe the measurement in one line: pass, precision, batch, hardware, threads, version of torch."""
    data, task = config["datamodule"], config["task"]
    batch = task["batch_size"] or data["batch_size"]
    shape = f"{batch} images of {data['in_chans']} x {data['image_size']} x {data['image_size']}"
    layout = ", channels_last" if config["channels_last"] else ""
    compiled = f", compile={str(config['compile']).lower()}" if config["compile"] else ""
    threads = f"{info['threads']} thread{'s'[: info['threads'] > 1]}"
    how = f"{task['mode']}, {config['trainer']['precision']}{layout}{compiled}, {shape}"
    return f"{how}, {info['hardware']}, {threads}, torch {torch.__version__}"
