"""W&B recording: online, offline or disabled; environment variables; complete history."""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ghostexp.runs import wandb_mode
from ghostexp.runs.csv_table import read_rows
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.naming import run_identity
from ghostexp.runs.wandb_key import has_key, hosts
from ghostexp.runs.wandb_mode import Recording, find_connection_problem, resolve_for_sweep, resolve_recording
from ghostexp.runs.wandb_names import NAME_LENGTH, check_tags, shorten_name
from ghostexp.training.loggers import RunInfo, wandb
from ghostexp.training.loggers.wandb import ResumableWandbLogger
from ghostexp.training.loggers.wandb_run import IGNORED_VARIABLES
from tests.cli import TINY, command, in_directory
from tests.config.test_user_errors import expect_one_line
from tests.offline_wandb import records, rows

KEY = "a" * 40
NOWHERE = "http://127.0.0.1:9"  # a port without a server
UNREACHABLE = f"{NOWHERE} cannot be reached (Connection refused)"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a key, and the address of an unreachable server."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)


@pytest.mark.parametrize(
    ("offline", "mode", "key", "network", "wanted"),
    [
        (None, "", True, True, Recording("online")),
        (None, "", False, True, Recording("offline")),
        (None, "", True, False, Recording("offline", UNREACHABLE)),
        (None, "offline", True, True, Recording("offline")),
        (None, "dryrun", True, False, Recording("offline")),
        (None, "disabled", False, False, Recording("disabled")),
        (None, "online", False, True, Recording("offline", "there is no W&B key (wandb login)")),
        (True, "online", True, True, Recording("offline")),
        (False, "offline", True, True, Recording("online")),
    ],
)
def test_resolve_recording_precedence(
    offline: bool | None, mode: str, key: bool, network: bool, wanted: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", KEY if key else "")
    monkeypatch.setattr(wandb_mode, "find_connection_problem", lambda _: None if network else UNREACHABLE)
    assert resolve_recording(offline) == wanted


@pytest.mark.usefixtures("no_network")
def test_resolve_recording_impossible_mode_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"wandb\.offline=false: http://127\.0\.0\.1:9 cannot be reached"):
        resolve_recording(False)
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(ValueError, match="WANDB_MODE=nonsense: must be online, offline or disabled"):
        resolve_recording(None)


def test_resolve_recording_reads_settings_after_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    (tmp_path / "settings").write_text("[default]\nmode = disabled\nbase_url = https://wandb.example.org\n")
    (tmp_path / "netrc").write_text("machine wandb.example.org\n  login user\n  password 0\n")
    assert resolve_recording(None) == Recording("disabled")
    assert (hosts(), has_key()) == (("https://wandb.example.org",), True)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_recording(None) == Recording("offline")


def test_find_connection_problem_uses_proxy_and_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert find_connection_problem([NOWHERE, address]) is None
        monkeypatch.setenv("WANDB_HTTPS_PROXY", address)
        assert find_connection_problem(["https://wandb.invalid"]) is None

    def hang(*_: object) -> None:
        time.sleep(1)
        raise OSError

    monkeypatch.setattr(wandb_mode, "CONNECT_TIMEOUT", 0.05)
    monkeypatch.setattr(wandb_mode.socket, "create_connection", hang)
    assert find_connection_problem(["https://slow"]) == "https://slow cannot be reached (no answer in 0.05 s)"


def recordings(run: Path) -> list[Path]:
    return sorted(run.glob("wandb/*run-*"))


@pytest.mark.usefixtures("no_network")
def test_run_without_network_is_offline_and_prints_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*TINY, "logger=wandb", in_directory(tmp_path / "run")) == 0
    out, err = capsys.readouterr()
    assert err.count(f"W&B: {UNREACHABLE}; this run is recorded offline\n") == 1
    (folder,) = recordings(tmp_path / "run")
    assert out.splitlines()[-1].split() == ["W&B", "wandb", "sync", str(folder)]


@pytest.mark.usefixtures("no_network")
def test_disabled_recording_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert command(*TINY, "logger=wandb", in_directory(tmp_path / "run")) == 0
    assert "W&B" not in "".join(capsys.readouterr())
    assert not recordings(tmp_path / "run")


@pytest.mark.usefixtures("no_network")
def test_first_error_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*TINY, "logger=wandb", "logger.wandb.offline=false", in_directory(tmp_path / "run")) == 1
    expect_one_line(capsys.readouterr().err, f"logger.wandb.offline=false: {UNREACHABLE}; null or true records offline")
    assert not recordings(tmp_path / "run")


@pytest.mark.usefixtures("no_network")
def test_resolve_for_sweep_prints_offline_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [{"logger": {"csv": {}, "wandb": {"offline": None}}} for _ in range(3)]
    resolve_for_sweep([{"logger": {"csv": {}}}, {"logger": None}])
    resolve_for_sweep(jobs)
    assert capsys.readouterr().err == f"W&B: {UNREACHABLE}; all jobs are recorded offline\n"
    assert resolve_recording(None) == Recording("offline")  # in the environment that the jobs inherit
    with pytest.raises(ValueError, match=r"logger\.wandb\.offline=false"):
        resolve_for_sweep([*jobs, {"logger": {"wandb": {"offline": False}}}])


def test_run_ignores_wandb_names_in_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in IGNORED_VARIABLES:
        monkeypatch.setenv(name, "left")
    run = tmp_path / "kind" / "run"
    assert command(*TINY, "logger=wandb", in_directory(run)) == 0
    (began,) = (record.run for record in records(run) if record.HasField("run"))
    assert (began.display_name, began.run_group, began.project, began.job_type) == ("kind/run", "", "ghostexp", "fit")
    assert (began.sweep_id, list(began.tags)) == ("", ["resnet20", "fake"])
    assert began.run_id == run_identity(run, RunDirectory(run).read_config())
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "WANDB_RUN_ID" in line)
    assert line.endswith("not used; the run's directory and logger.wandb decide its id, names and project")
    assert set(IGNORED_VARIABLES) <= os.environ.keys()


def test_run_begun_anew_in_a_directory_of_that_name_is_another(tmp_path: Path) -> None:
    run, ids = tmp_path / "kind" / "run", []
    for _ in range(2):
        assert command(*TINY, "trainer.max_epochs=1", "logger=wandb", in_directory(run)) == 0
        ids.append(run_identity(run, RunDirectory(run).read_config()))
        shutil.rmtree(run)
    assert len({*ids}) == 2


def test_resumed_run_supersedes_killed_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    every_step = ("trainer.log_every_n_steps=1", "logger=wandb")
    assert command(*TINY, *every_step, in_directory(run)) == 0
    complete = rows(run)
    (run / "result.json").unlink()
    (first,) = recordings(run)
    (record,) = first.glob("*.wandb")
    record.write_bytes(record.read_bytes()[:7])  # what kill -9 leaves
    assert command(f"resume={run}") == 0
    (second,) = recordings(run)
    assert (run / "wandb" / "superseded" / first.name).is_dir()
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"wandb sync {second}")
    assert [history(row) for row in rows(run) if "epoch" in row] == [history(row) for row in complete if "epoch" in row]


def history(row: dict[str, Any]) -> dict[str, Any]:
    """Drop W&B's own columns."""
    return {key: value for key, value in row.items() if not key.startswith("_")}


def test_each_step_is_one_complete_row(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command(*TINY, "trainer.log_every_n_steps=1", "logger=wandb", in_directory(run)) == 0
    logged = [row for row in rows(run) if "epoch" in row]
    assert [row["trainer/global_step"] for row in logged] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {"train/loss", "train/loss_step", "val/acc1", "speed/images_per_second"} <= logged[-1].keys()
    last = read_rows(run / "metrics.csv")[-1]
    assert logged[-1]["val/acc1"] == float(last["val/acc1"])


class OnServer:
    """A W&B run that the server has up to a step; records the steps logged."""

    resumed = True

    def __init__(self, last: int) -> None:
        self.summary = {"trainer/global_step": last}
        self.steps: list[int] = []

    def log(self, row: dict[str, Any]) -> None:
        self.steps.append(row["trainer/global_step"])


@pytest.mark.parametrize(("last", "steps"), [(3, [4, 5, 6]), (5, [6]), (-1, [1, 2, 3, 4, 5, 6])])
def test_logger_sends_only_missing_rows(
    last: int, steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnServer(last)
    monkeypatch.setattr(wandb, "start_run", lambda *_: run)
    (tmp_path / "metrics.csv").write_text("step,epoch,lr\n" + "".join(f"{step},1,0.1\n" for step in range(1, 6)))
    logger = ResumableWandbLogger(RunInfo(tmp_path, "0", "a/b", "fit", {}, resumed_step=4), project="ghosts")
    for step in (5, 6):
        logger.log_metrics({"lr": 0.1}, step)
    logger.save()
    assert run.steps == steps


class Refusing(BaseHTTPRequestHandler):
    """A server that refuses the key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(401)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{http.server_port}")
        yield
        http.shutdown()
        thread.join()


@pytest.mark.usefixtures("refusing")
def test_refused_run_is_recorded_offline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert command(*TINY, "logger=wandb", in_directory(run)) == 0
    assert "W&B: the server refused the run (" in capfd.readouterr().err
    (folder,) = recordings(run)
    assert folder.name.startswith("offline-run-")
    assert [row["trainer/global_step"] for row in rows(run) if "epoch" in row] == [4, 8]


def test_wandb_errors_at_end_keep_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("gone")

    monkeypatch.setattr(ResumableWandbLogger, "log_test", fail)
    monkeypatch.setattr(wandb, "move_superseded", fail)
    assert command(*TINY, "logger=wandb", in_directory(tmp_path / "run")) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B: ")]
    assert [line.partition(" (")[2] for line in lines] == ["RuntimeError: gone)"] * 2
    assert "test/acc1" in json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test"]


def test_names_and_tags_have_valid_lengths() -> None:
    names = [shorten_name("a" * 200 + end) for end in "xy"]
    assert [len(name) for name in names] == [NAME_LENGTH] * 2
    assert names[0] != names[1]
    assert shorten_name("study/ratio-2") == "study/ratio-2"
    check_tags(["a", "b" * 64])
    for tag in ("", "b" * 65):
        with pytest.raises(ValueError, match=r"logger\.wandb\.tags: a tag must have 1 to 64 characters, got"):
            check_tags([tag])
