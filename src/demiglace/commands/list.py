"""`demiglace tasks` and `demiglace methods`: the named tasks and the methods, with their papers."""

from collections.abc import Sequence

from demiglace.config.command_options import MethodsConfig, TasksConfig
from demiglace.config.options import Option, command, options_of
from demiglace.data.rows.named_task_table import TASKS, NamedTask
from demiglace.errors import ConfigError, unknown
from demiglace.runs.result import Result, ResultTable


@command(TasksConfig)
def tasks(config: TasksConfig) -> Result:
    """Return the table of named tasks, or one task in full. Raises `ConfigError` for an unknown name."""
    if config.name is None:
        columns = ("task", "what", "labels", "metrics", "splits", "for models of", "paper")
        return _table("Named tasks", columns, [_task_row(name, task) for name, task in TASKS.items()])
    if config.name not in TASKS:
        raise ConfigError(unknown("task", config.name, TASKS))
    return _table(config.name, ("", ""), _task_facts(TASKS[config.name]))


@command(MethodsConfig)
def methods(config: MethodsConfig) -> Result:
    """Return the table of methods, one method's options, or one as YAML. Raises `ConfigError` for an unknown name."""
    from demiglace.methods.describe import show_method
    from demiglace.methods.registry import find_method, method_names  # which import torch; `tasks` does not need it

    if not config.name:
        rows = [_method_row(name) for name in method_names()]
        return _table("Distillation methods", ("method", "what", "paper", "url"), rows)
    if config.name[0] == "show" and len(config.name) == 2:
        shown = show_method(config.name[1], config.student_layers, config.teacher_layers, config.epochs, config.seed)
        return Result(None, {}, text=shown.rstrip("\n"))
    if len(config.name) > 1 or config.name[0] == "show":
        raise ConfigError("name one method, or `show` and one method: demiglace methods show rail-kd-l.")
    row = find_method(config.name[0])
    about = f"{row.title} ({', '.join(filter(None, (row.paper, row.url)))})"
    heading = f"{row.name}: {about}\n{row.options.__doc__ or ''}\n\n--method-options.NAME VALUE"
    options = [_option_row(o) for o in options_of(row.options)]
    return _table(heading, ("option", "value", "default", "what"), options)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Result:
    """Return a table, whose rows are also the numbers of the result, by their first cell."""
    facts = {r[0]: r[1] if len(r) == 2 else dict(zip(columns[1:], r[1:], strict=True)) for r in rows}
    return Result(None, facts, (ResultTable(title, tuple(columns), tuple(map(tuple, rows))),))


def _method_row(name: str) -> Sequence[str]:
    from demiglace.methods.registry import find_method

    try:
        row = find_method(name)
    except ConfigError as error:  # a package that cannot be used hides no other method
        return name, str(error), "", ""
    return row.name, row.title, row.paper, row.url


def _task_row(name: str, task: NamedTask) -> Sequence[str]:
    sources = ", ".join(task.sources)
    return name, task.title, _label_count(task), ", ".join(task.metrics), ", ".join(task.splits), sources, task.paper


def _task_facts(task: NamedTask) -> list[tuple[str, str]]:
    facts = {
        "what": task.title,
        "labels": ", ".join(task.labels) or _label_count(task),
        "metrics": ", ".join(task.metrics),
        "splits": ", ".join(task.splits),
        "texts": ", ".join(task.text_columns),
        "for models of": ", ".join(task.sources),
        "paper": task.paper,
        "url": task.url,
        "hub": ", ".join(filter(None, task.hub or ())) or "–",
        "note": task.note,
    }
    return [(name, fact) for name, fact in facts.items() if fact]


def _label_count(task: NamedTask) -> str:
    return task.kind.labels_in_words or (str(len(task.labels)) if task.labels else "named in the data")


def _option_row(o: Option) -> Sequence[str]:
    default = f"{o.default:.4g}" if isinstance(o.default, float) else str(o.default)
    return o.name, o.expected, "required" if o.required else default, o.help
