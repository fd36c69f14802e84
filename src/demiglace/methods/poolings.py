"""Which pooling `auto` means for two models."""

from typing import overload

from demiglace.models.pooling import HiddenStateKind, Pooling, PoolingOption, StateOption
from demiglace.models.shape import ModelShape


@overload
def resolve_pooling(pooling: PoolingOption, student: ModelShape, teacher: ModelShape) -> Pooling: ...
@overload
def resolve_pooling(pooling: StateOption, student: ModelShape, teacher: ModelShape) -> HiddenStateKind: ...
def resolve_pooling(pooling: StateOption, student: ModelShape, teacher: ModelShape) -> HiddenStateKind:
    """Return the pooling itself, or for `auto` the one that distinguishes rows best in both models.

    Many decoders put a norm of about 100 times the others on the first token (an attention sink, Xiao et al. 2023,
    arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762), so that plain means of all rows are alike. `auto` is therefore
    normalized-mean where either model is causal, and mean elsewhere (measured by benchmarks/pooling.py).
    """
    if pooling != "auto":
        return pooling
    return "normalized-mean" if student.causal or teacher.causal else "mean"
