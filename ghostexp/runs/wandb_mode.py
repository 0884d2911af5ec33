"""Decide whether Weights & Biases logs online, offline or not at all, within seconds and without importing it."""

import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ghostexp.runs.wandb_key import has_key, hosts, setting

log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
CONNECT_TIMEOUT = 5.0  # seconds, including the lookup of the name


@dataclass(frozen=True)
class Recording:
    """Mode of recording, and the problem if it should be online but is not."""

    mode: Mode
    problem: str | None = None


def resolve_recording(offline: bool | None) -> Recording:
    """Decide how a run is recorded: by `logger.wandb.offline`, else by WANDB_MODE, else by whether there is a key.

    Without a key or a connection, a run is recorded offline.
    Raises ValueError: `logger.wandb.offline=false` without a key or a connection; an unknown WANDB_MODE.
    """
    mode = _configured_mode(offline) or ("online" if has_key() else "offline")
    if mode != "online":
        return Recording(mode)
    problem = find_problem()
    if problem is None:
        return Recording("online")
    if offline is False:
        raise ValueError(f"logger.wandb.offline=false: {problem}; null or true records offline")
    return Recording("offline", problem)


def find_problem() -> str | None:
    """Return why W&B cannot be used online; None if it can."""
    return find_connection_problem(hosts()) if has_key() else "there is no W&B key (wandb login)"


def resolve_for_sweep(configs: Iterable[Mapping[str, Any]]) -> None:
    """Set WANDB_MODE=offline for all jobs of a sweep if they cannot be recorded online.

    Raises ValueError as `resolve_recording` does.
    """
    loggers = [config.get("logger") or {} for config in configs]
    typed = {logger["wandb"].get("offline") for logger in loggers if "wandb" in logger}
    for offline in sorted(typed, key=str):
        recording = resolve_recording(offline)
        if recording.problem:
            announce(f"W&B: {recording.problem}; all jobs are recorded offline")
            os.environ["WANDB_MODE"] = "offline"


def announce(text: str) -> None:
    """Print a line about W&B, and log it."""
    log.info(text)  # a warning would be printed twice without a log handler
    print(text, file=sys.stderr, flush=True)


def _configured_mode(offline: bool | None) -> Mode | None:
    if offline is not None:
        return "offline" if offline else "online"
    name = setting("mode")
    if name is None:
        return None
    if name not in MODES:
        raise ValueError(f"WANDB_MODE={name}: must be online, offline or disabled")
    return MODES[name]


def find_connection_problem(addresses: Sequence[str]) -> str | None:
    """Return why no address accepts a connection; None as soon as one does."""
    answers: queue.Queue[str | None] = queue.Queue()
    for address in addresses:  # in threads, because the lookup of a name has no timeout
        threading.Thread(target=_connect, args=(address, answers), daemon=True).start()
    problem = f"{addresses[0]} cannot be reached (no answer in {CONNECT_TIMEOUT:g} s)"
    for _ in addresses:
        try:
            answer = answers.get(timeout=CONNECT_TIMEOUT)
        except queue.Empty:
            break
        if answer is None:
            return None
        problem = answer
    return problem


def _connect(address: str, answers: queue.Queue[str | None]) -> None:
    try:
        socket.create_connection(_endpoint(address), CONNECT_TIMEOUT).close()
    except (OSError, ValueError) as error:
        answers.put(f"{address} cannot be reached ({getattr(error, 'strerror', None) or error})")
    else:
        answers.put(None)


def _endpoint(address: str) -> tuple[str, int]:
    """Return host and port to connect to: those of the proxy, if there is one."""
    url = urlsplit(address)
    proxy = setting(f"{url.scheme}_proxy") or getproxies().get(url.scheme)
    if proxy and not proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
