"""Test --help and --cfg."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import command


def test_help_lists_groups_and_commands_without_importing_torch() -> None:
    code = "import sys; from ghostexp.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    help_text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert help_text.strip().splitlines()[-1] == "False"  # 0.7 s instead of 10
    for group in (
        "model: faster_rcnn_ghostnet",
        "datamodule: cifar10",
        "scheduler: constant",
        "study: dw_size_ablation",
    ):
        assert group in help_text
    assert help_text.count("python -m ghostexp") >= 10


def test_cfg_prints_a_configuration_without_running_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command("model=ghost_vgg16", "--cfg", "job") == 0
    assert "ghostexp.models.ghostify.ghostify" in capsys.readouterr().out
    assert not (tmp_path / "outputs").exists()
