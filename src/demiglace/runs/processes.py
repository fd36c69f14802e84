"""The processes of a distributed run, and how long they wait for each other."""

from datetime import timedelta

import torch
from accelerate import PartialState

# How long processes wait for each other: while the first one waits for a cache that another run fills, or tokenises a
# corpus, the others stand at a barrier, and torch's own 10 to 30 minutes would end them. torchrun ends them where one
# dies.
_BARRIER_TIMEOUT = timedelta(days=7)


def processes() -> PartialState:
    """This process among those of a `torchrun`, and its device."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_BARRIER_TIMEOUT)
