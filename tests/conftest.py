"""Isolate every test: one thread, no W&B account, outputs in a temporary directory."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _isolate_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHOSTEXP_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("GHOSTEXP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # artifacts to sync; by default in the home directory
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "")  # a sweep may set it
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
