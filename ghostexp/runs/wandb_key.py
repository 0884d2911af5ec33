"""Whether Weights & Biases can be reached under somebody's name; asked without importing it."""

import configparser
import contextlib
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

HOSTS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")  # of the public server, before and since wandb 0.31


def has_key() -> bool:
    """Whether W&B can log in without asking: a key in the environment, or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        known = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(urlsplit(host).netloc) is not None for host in hosts())


def hosts() -> tuple[str, ...]:
    """The addresses of the server: the one that is configured, or those of the public one."""
    configured = setting("base_url")
    return (configured,) if configured else HOSTS


def setting(name: str) -> str | None:
    """A setting as W&B reads it: from the environment, else from the folder's file or the user's."""
    typed = os.environ.get(f"WANDB_{name.upper()}")
    if typed:
        return typed
    user = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    folder = Path(os.environ.get("WANDB_DIR", ".")).expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        parser.read([user / "settings", folder / "wandb" / "settings"])
    return parser.get("default", name, fallback=None) or None
