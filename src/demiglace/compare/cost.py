"""The cost of a grid: each fine-tuning, distillation and search that is not done is estimated separately."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from demiglace.compare.job_config import config_of
from demiglace.compare.job_graph import Job, JobGraph
from demiglace.config.command_options import DistillConfig, FinetuneConfig
from demiglace.costs.estimate import Speed
from demiglace.costs.measure_speed import measure_speed
from demiglace.costs.run_spec import RunSpec, models_of, run_spec, token_lengths
from demiglace.models.shape import ModelShape

_SECONDS = 3.0  # for measuring the speed of one pair of models


@dataclass(frozen=True)
class GridCost:
    """The estimated cost of the jobs that are not done."""

    seconds: Mapping[str, float] | None  # command -> seconds, one job after another; None: a model does not fit here
    cache_bytes: int  # of all teachers' cached signals


def grid_cost(graph: JobGraph, done: Collection[str]) -> GridCost:
    """Estimate the cost of the fine-tunings, searches and distillations that are not done.

    Evaluations, exports and early stopping are not estimated. Signals of a teacher that several runs share are counted
    once. The speed is measured once per pair of models.

    Args:
        graph: the jobs.
        done: the keys of the jobs that are done.

    Raises:
        UserError: as the jobs themselves would.
    """
    seconds = dict.fromkeys(("finetune", "search", "distill"), 0.0)
    caches: dict[tuple[object, ...], int] = {}
    speeds: dict[tuple[object, ...], Speed | None] = {}
    for job, spec in _training_jobs(graph, done):
        pair = tuple(map(_without_head, spec.shapes))
        if pair not in speeds:
            speeds[pair] = measure_speed(spec, _SECONDS)
        estimate = spec.estimate(speeds[pair])
        cache_of = (job.task, job.options.get("cache"), spec.poolings, estimate.cache_bytes)
        if estimate.seconds is not None:
            capture = 0.0 if cache_of in caches else estimate.seconds.capture
            seconds[job.stage] += capture + (estimate.seconds.total - estimate.seconds.capture) * max(1, job.trials)
        caches[cache_of] = estimate.cache_bytes
    return GridCost(None if None in speeds.values() else seconds, sum(caches.values()))


def _without_head(shape: ModelShape | None) -> object:
    """Return the part of a model's shape that its speed depends on: everything but the head."""
    return None if shape is None else replace(shape, num_labels=0, parameters=0)


def _training_jobs(graph: JobGraph, done: Collection[str]) -> Iterator[tuple[Job, RunSpec]]:
    """Yield the jobs that train and are not done, each with the inputs of its estimate."""
    read = cache(token_lengths)
    for job in graph.jobs:
        config = config_of(job, graph.root)
        if job.key in done or not isinstance(config, (FinetuneConfig, DistillConfig)):
            continue
        if isinstance(config, DistillConfig):
            config = with_existing_models(config, graph)
        yield job, run_spec(config, read(config.source, config.location, *models_of(config)))


def with_existing_models(config: DistillConfig, graph: JobGraph) -> DistillConfig:
    """Return the config of a distillation with models that exist before any job has run.

    A teacher that is still to be fine-tuned is replaced by its base model, which has the same shape. A student that is
    still to be truncated becomes a truncation of the teacher by this config.
    """
    pending = {str(graph.root / s.key): s for s in graph.jobs if not (graph.root / s.key / "manifest.json").exists()}
    start = pending.get(str(config.student))
    if start is not None:
        truncation = config_of(start, graph.root)
        choice = {name: getattr(truncation, name) for name in ("layers", "strategy", "keep")}
        shallower = choice["layers"] is not None or choice["keep"] is not None
        config = replace(config, student=None, **choice) if shallower else replace(config, student=config.teacher)
    teacher = pending.get(config.teacher)
    return config if teacher is None else replace(config, teacher=config_of(teacher, graph.root).model)
