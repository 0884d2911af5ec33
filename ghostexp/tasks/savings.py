"""Say what `ghostify` replaced in the network of a run, and what that saved."""

import logging
from dataclasses import asdict

from lightning.pytorch.utilities import rank_zero_only

from ghostexp.analysis.savings import savings
from ghostexp.runs.directory import RunDirectory
from ghostexp.runs.table import write_rows
from ghostexp.tasks import build

log = logging.getLogger(__name__)


@rank_zero_only
def note_savings(built: build.Built, config: build.Config, run: RunDirectory) -> None:
    """Write `ghosted.csv`, a row for each convolution that was replaced, and the totals as a line; else nothing."""
    data = config["datamodule"]
    rows = savings(built.network, (data["in_chans"], data["image_size"], data["image_size"]))
    if not rows:
        return
    write_rows(run.path / "ghosted.csv", [asdict(row) for row in rows])
    cost = built.cost
    params = cost.params + sum(row.params_before - row.params_after for row in rows)
    macs = cost.macs + sum(row.macs_before - row.macs_after for row in rows)
    text = (
        f"{len(rows)} convolutions replaced by ghost modules (ghosted.csv): "
        f"parameters {params:,} -> {cost.params:,}, MACs {macs:,} -> {cost.macs:,}"
    )
    log.info(text)
    print(text)
