"""Whether Weights & Biases can be reached under somebody's name; asked without importing it."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

HOSTS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")  # of the public server, before and since wandb 0.31


def has_key() -> bool:
    """Whether W&B can log in without asking: a key in the environment, or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    hosts = [os.environ["WANDB_BASE_URL"]] if os.environ.get("WANDB_BASE_URL") else HOSTS
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        known = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(urlsplit(host).netloc) is not None for host in hosts)
