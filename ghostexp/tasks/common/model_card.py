"""Write the model card beside an exported network: its properties, and how each file is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from ghostexp.analysis.cost import Cost
from ghostexp.runs.directory import RunDirectory
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
    "safetensors": """from safetensors.torch import load_file

state_dict = load_file("{file}")

import timm
import ghostexp.timm  # registers the architecture of config.json

network = timm.create_model("local-dir:.", pretrained=True).eval()""",
}


@dataclass(frozen=True)
class Card:
    """Content of a model card.

    checks: those of `tasks.export`, by file and for the `fused` network.
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
        parts = (self._head(), self._numbers(), self._input(), self._loading(), self._configuration())
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
            *((name, f"{value:.4f}" + ("" if "loss" in name else " %")) for name, value in self._metrics().items()),
            ("largest difference by fusing, of the largest logit", f"{self.checks['fused']['difference']:.1e}"),
            ("largest difference by rounding to float32, of the largest logit", f"{self.rounding:.1e}"),
        ]
        return markdown_table(["", ""], rows)

    def _metrics(self) -> dict[str, float]:
        """Return the run's own test metrics, if they are those of this checkpoint."""
        run = self.config["run"]
        result = RunDirectory(Path(run)).read_result() if run is not None else None
        if result is None or result.get("test_checkpoint") != self.trained.checkpoint:
            return {}
        return result["metrics"]["test"]

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
