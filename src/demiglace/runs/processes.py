"""The processes of a `torchrun`, and how long they wait for each other."""

from datetime import timedelta

import torch
from accelerate import PartialState

# Rank 0 may wait for hours: for a cache that another run fills, or while it tokenizes a corpus. The other ranks wait at
# a barrier meanwhile, where torch's default timeout of 10 to 30 minutes would end them. If one process dies, torchrun
# ends the others.
_BARRIER_TIMEOUT = timedelta(days=7)


def processes() -> PartialState:
    """Return the state of this process: its rank, the number of processes, and its device."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=_BARRIER_TIMEOUT)
