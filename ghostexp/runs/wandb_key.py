"""Find the API key and settings of Weights & Biases without importing it."""

import configparser
import contextlib
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

HOSTS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")  # of the public server, before and since wandb 0.31


def has_key() -> bool:
    """Return whether there is a W&B key, in the environment or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        keys = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(keys.authenticators(urlsplit(host).netloc) is not None for host in hosts())


def hosts() -> tuple[str, ...]:
    """Return the addresses of the server: the configured one, or those of the public server."""
    configured = setting("base_url")
    return (configured,) if configured else HOSTS


def setting(name: str) -> str | None:
    """Return a W&B setting: from the environment, else from the settings file of the folder or user."""
    variable = os.environ.get(f"WANDB_{name.upper()}")
    if variable:
        return variable
    user = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    folder = Path(os.environ.get("WANDB_DIR", ".")).expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        parser.read([user / "settings", folder / "wandb" / "settings"])
    return parser.get("default", name, fallback=None) or None
