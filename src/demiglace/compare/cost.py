"""What a grid will cost: every fine-tuning, distillation and search of its plan that is not done, estimated alone."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from demiglace.compare.job_config import config_of
from demiglace.compare.job_graph import Job, JobGraph
from demiglace.config.commands import DistillConfig, FinetuneConfig
from demiglace.costs.estimate import Speed
from demiglace.costs.measure_speed import measure_speed
from demiglace.costs.run_spec import RunSpec, run_spec, token_lengths
from demiglace.models.shape import ModelShape

_SECONDS = 3.0  # for measuring the speed of one pair of models


@dataclass(frozen=True)
class GridCost:
    """Seconds of the trainings to come by stage, if they ran one after another; bytes of all teachers' signals.

    seconds: none where a model does not fit this machine.
    """

    seconds: Mapping[str, float] | None
    cache_bytes: int


def grid_cost(plan: JobGraph, done: Collection[str]) -> GridCost:
    """The cost of the plan's fine-tunings, searches and distillations that are not among `done`.

    Evaluations and exports are not counted, and early stopping is not foreseen. The same signals of a teacher
    are captured once, by the first run that asks for them. The speed is measured once for every pair of models. Raises
    `UserError`s as the runs themselves would.
    """
    seconds = dict.fromkeys(("finetune", "search", "distill"), 0.0)
    caches: dict[tuple[object, ...], int] = {}
    speeds: dict[tuple[object, ...], Speed | None] = {}
    for step, subject in _subjects(plan, done):
        pair = tuple(map(_kind, subject.shapes))
        if pair not in speeds:
            speeds[pair] = measure_speed(subject, _SECONDS)
        found = subject.estimate(speeds[pair])
        cache_of = (step.task, step.options.get("cache"), subject.poolings, found.cache_bytes)
        if found.seconds is not None:
            capture = 0.0 if cache_of in caches else found.seconds.capture
            seconds[step.stage] += capture + (found.seconds.total - found.seconds.capture) * max(1, step.trials)
        caches[cache_of] = found.cache_bytes
    return GridCost(None if None in speeds.values() else seconds, sum(caches.values()))


def _kind(shape: ModelShape | None) -> object:
    """What decides a model's speed: not its head."""
    return None if shape is None else replace(shape, num_labels=0, parameters=0)


def _subjects(plan: JobGraph, done: Collection[str]) -> Iterator[tuple[Job, RunSpec]]:
    read = cache(token_lengths)
    for step in plan.steps:
        config = config_of(step, plan.home)
        if step.key in done or not isinstance(config, (FinetuneConfig, DistillConfig)):
            continue
        if isinstance(config, DistillConfig):
            config = with_present_models(config, plan)
        model = config.model if isinstance(config, FinetuneConfig) else config.teacher
        yield step, run_spec(config, read(config.source, config.location, model))


def with_present_models(config: DistillConfig, plan: JobGraph) -> DistillConfig:
    """The same distillation from the models that are there before the plan has run any of its steps.

    A teacher that is yet to be fine-tuned has the shape of the model it begins as, and a student that is yet to be cut
    is cut here.
    """
    to_come = {str(plan.home / s.key): s for s in plan.steps if not (plan.home / s.key / "manifest.json").exists()}
    start = to_come.get(str(config.student))
    if start is not None:
        cut = config_of(start, plan.home)
        config = replace(config, student=None, layers=cut.layers, strategy=cut.strategy, keep=cut.keep)
    teacher = to_come.get(config.teacher)
    return config if teacher is None else replace(config, teacher=config_of(teacher, plan.home).model)
