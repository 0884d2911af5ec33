"""Let the ranks of a run agree on what each of them sees alone, such as a signal, by one collective now and then."""

import time

import lightning.pytorch as pl
import torch
import torch.distributed


class RankAgreement:
    """Whether any rank asks for something: the same answer on all ranks, in the same step.

    With one rank the answer is immediate. With several they ask each other every `every` steps, more often where that
    would take over a second, and whenever `now` is set.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self.steps_left = 1
        self.asked_at = time.monotonic()
        self.steps = 0  # since then

    def any(self, trainer: pl.Trainer, *wishes: bool, now: bool = False) -> tuple[bool, ...]:
        """Return for each wish whether any rank has it; all False in steps in which the ranks do not ask."""
        if trainer.world_size == 1:
            return wishes
        self.steps += 1
        self.steps_left -= 1
        if self.steps_left > 0 and not now:
            return (False,) * len(wishes)
        seconds = (time.monotonic() - self.asked_at) / self.steps
        values = torch.tensor([*wishes, seconds], dtype=torch.float64, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        *answers, seconds = values.tolist()
        self.steps_left = max(1, min(self.every, int(1 / max(seconds, 1e-9))))
        self.asked_at, self.steps = time.monotonic(), 0
        return tuple(answer > 0 for answer in answers)
