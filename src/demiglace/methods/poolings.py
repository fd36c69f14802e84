"""Resolve the pooling `auto` for a student and a teacher."""

from typing import overload

from demiglace.models.pooling import HiddenStateKind, Pooling, PoolingOption, StateOption
from demiglace.models.shape import ModelShape


@overload
def resolve_pooling(pooling: PoolingOption, student: ModelShape, teacher: ModelShape) -> Pooling: ...
@overload
def resolve_pooling(pooling: StateOption, student: ModelShape, teacher: ModelShape) -> HiddenStateKind: ...
def resolve_pooling(pooling: StateOption, student: ModelShape, teacher: ModelShape) -> HiddenStateKind:
    """Return the pooling; for `auto`, the one whose vectors differ most between rows in both models.

    In many decoders the norm of the first token is about 100 times that of the others (an attention sink, Xiao et al.
    2023, arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762), so the plain means of all rows are nearly equal. `auto`
    is therefore normalized-mean if either model is causal, else mean (measured by benchmarks/pooling.py).
    """
    if pooling != "auto":
        return pooling
    return "normalized-mean" if student.causal or teacher.causal else "mean"
