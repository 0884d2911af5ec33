"""Write the model card beside an exported network: its properties, and how each file is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from ghostexp.analysis.cost import Cost
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.metrics import metric_unit
from ghostexp.runs.text_files import markdown_table
from ghostexp.tasks.common.instantiate import Config
from ghostexp.tasks.common.load_model import LoadedModel

LOADING = {
    "onnx": """import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
logits = session.run(None, {{"images": np.zeros({shape}, np.float32)}})[0]""",
    "torch": """import torch

network = torch.export.load("{file}").module()
logits = network(torch.zeros{shape})""",
    "openvino": """import numpy as np
import openvino

options = {{"INFERENCE_PRECISION_HINT": "f32"}}  # "bf16": faster on processors with bfloat16
network = openvino.Core().compile_model("{file}", "CPU", options)
logits = network(np.zeros({shape}, np.float32))[0]""",
    "openvino+int8": """import numpy as np
import openvino

options = {{"INFERENCE_PRECISION_HINT": "f32"}}  # of layers that are not in int8
network = openvino.Core().compile_model("{file}", "CPU", options)
logits = network(np.zeros({shape}, np.float32))[0]""",
    "safetensors": """from safetensors.torch import load_file

state_dict = load_file("{file}")

import timm
import ghostexp.timm  # registers the architecture of config.json

network = timm.create_model("local-dir:.", pretrained=True).eval()""",
}


FORMS = {
    "network": "the network, as trained",
    "fused": "the network, fused",
    "openvino+bf16": "`model.xml` in bfloat16",
}


@dataclass(frozen=True)
class Card:
    """Content of a model card.

    checks: those of `tasks.export`, by file and for the network, as trained and `fused`.
    rounding: change of the network's logits by float32, relative to the largest one.
    """

    config: Config
    trained: LoadedModel
    fused: Cost
    mean_std: tuple[tuple[float, ...], tuple[float, ...]]
    files: dict[str, str]
    checks: dict[str, dict[str, float]]
    rounding: float
    has_names: bool

    def text(self) -> str:
        """Format the card in Markdown."""
        parts = (self._head(), self._numbers(), self._tested(), self._input(), self._loading(), self._configuration())
        return "\n\n".join(part for part in parts if part) + "\n"

    def _head(self) -> str:
        name = self.config["name"]
        source = self.trained.source + (f", {self.trained.checkpoint} checkpoint" if self.trained.checkpoint else "")
        source += "" if self.trained.ema is None else f", exponential moving average (decay {self.trained.ema})"
        chosen = self.config["task"]["license"]
        license_text = chosen or "not chosen (`task.license=...`); the terms of the training data apply too"
        return (
            f"# {name}\n\nAn image classifier by ghostexp. Weights: {source}. License of the weights: {license_text}."
        )

    def _numbers(self) -> str:
        rows = [
            ("parameters, fused for inference", f"{self.fused.params:,}"),
            ("parameters, as trained", f"{self.trained.cost.params:,}"),
            ("multiply-accumulates of an image, fused", f"{self.fused.macs:,}"),
            *((name, f"{value:.4f} {metric_unit(name)}".rstrip()) for name, value in self._metrics().items()),
            ("largest difference by fusing, of the largest logit", f"{self.checks['fused']['difference']:.1e}"),
            ("largest difference by rounding to float32, of the largest logit", f"{self.rounding:.1e}"),
        ]
        return markdown_table(["", ""], rows)

    def _tested(self) -> str:
        """Return the table of the accuracies of all files; empty if they were not tested."""
        rows = {name: check for name, check in self.checks.items() if "acc1" in check}
        if not rows:
            return ""
        base = rows["network"]
        cells = [
            (f"`{self.files[name]}`" if name in self.files else FORMS.get(name, name), *_accuracy(check, base["acc1"]))
            for name, check in rows.items()
        ]
        head = (
            f"on {base['test_images']} test images",
            "accuracy",
            "points from the network",
            "logits within",
            "equal",
        )
        return (
            f"{markdown_table(head, cells)}\n\n`logits within`: the largest difference of a logit, of the largest one; "
            "`equal`: predictions that equal the network's, of test images and random ones."
        )

    def _metrics(self) -> dict[str, float]:
        """Return the run's own test metrics that are numbers, if they are those of this checkpoint."""
        run = self.config["run"]
        result = RunDirectory(Path(run)).read_result() if run is not None else None
        if result is None or result.get("test_checkpoint") != self.trained.checkpoint:
            return {}
        return {name: value for name, value in result["metrics"]["test"].items() if value is not None}

    def _input(self) -> str:
        data = self.config["datamodule"]
        mean, std = (json.dumps([round(value, 4) for value in values]) for values in self.mean_std)
        shape = f"(N, {data['in_chans']}, {data['image_size']}, {data['image_size']})"
        return (
            f"Input: float32 {shape}, any N; pixels in [0, 1], minus mean {mean}, divided by std {std}, for each "
            f"channel. Output: logits (N, {data['num_classes']})"
            + (", in the order of `classes.json`." if self.has_names else ".")
        )

    def _loading(self) -> str:
        data = self.config["datamodule"]
        shape = (2, data["in_chans"], data["image_size"], data["image_size"])
        return "\n\n".join(
            f"`{file}`: {self._checked(name)}\n\n```python\n{LOADING[name].format(file=file, shape=shape)}\n```"
            + (
                f"\n\nor, to train or test with it, `python -m ghostexp model=... model.weights={file}`."
                if name == "safetensors"
                else ""
            )
            for name, file in self.files.items()
        )

    def _checked(self, name: str) -> str:
        check = self.checks[name]
        return (
            f"logits within {check['difference']:.1e} of the largest, and {check['same_predictions']} of "
            f"{check['images']} predictions equal to the network's (test images and random ones)."
        )

    def _configuration(self) -> str:
        made = {key: self.config[key] for key in ("model", "datamodule", "seed")}
        text = yaml.safe_dump(made, sort_keys=False).strip()
        return f"Model and data; the whole configuration is in `config.yaml`:\n\n```yaml\n{text}\n```"


def _accuracy(check: dict[str, float], base: float) -> tuple[str, str, str, str]:
    compared = "difference" in check
    return (
        f"{check['acc1']:.2f} %",
        f"{check['acc1'] - base:+.2f}",
        f"{check['difference']:.1e}" if compared else "",
        f"{check['same_predictions']} of {check['images']}" if compared else "",
    )
