"""The grid of a comparison, from its YAML: which parts it has, and that every name in it exists."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from demiglace.compare.search_space import Search, read_search
from demiglace.config.aliases import RENAMED, canonical, canonical_values, unknown_option
from demiglace.config.commands import DistillConfig, EvaluateConfig, ExportConfig, FinetuneConfig, TruncateConfig
from demiglace.config.options import build, option, options_of
from demiglace.errors import ConfigError, unknown
from demiglace.methods.registry import METHODS, is_file
from demiglace.results.cells import CONTROLS
from demiglace.results.contrasts import Contrast, read_contrasts

Options = Mapping[str, Any]
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_RESERVED = {
    "tasks": ("logs", "failed", "locks", "each", "average"),
    "students": ("teacher", "signals"),
    "methods": ("start",),
}


@dataclass(frozen=True)
class _File:
    """What a grid file holds."""

    tasks: dict[str, Any] = option("label -> options that hold for this task; `data` is the label unless given")
    students: dict[str, Any] = option("label -> how the teacher is truncated, or {model: DIR}")
    methods: dict[str, Any] = option("label -> options; `method` is the label unless given")
    teacher: dict[str, Any] = option("how the teacher of each task is fine-tuned, or {run: DIR}", {})
    teachers: dict[str, Any] = option("task -> run directory of a teacher that is there already", {})
    defaults: dict[str, Any] = option("options of every student run; those about rows hold for the teachers too", {})
    axes: dict[str, Any] = option("option -> values, each combination being a cell of the grid", {})
    skip: dict[str, Any] = option("label of a task or a student -> methods that are not run there", {})
    seeds: tuple[int, ...] = option("the seeds of every cell", (0, 1, 2, 3, 4), at_least=0)
    replicates: tuple[int, ...] = option(
        "instead of `seeds`: each number draws the training rows, the teacher, the student and all seeds",
        (),
        at_least=0,
    )
    evaluate: dict[str, Any] = option(
        "sets: more sets; suites: true for each task's own; files: the user's own; teacher: false to leave it out",
        {},
    )
    export: dict[str, Any] | None = option("options of `demiglace export`, or true", None)
    search: dict[str, Any] | None = option("trials, ranges, per: what --search optuna looks through", None)
    primary: tuple[dict[str, Any], ...] = option(
        "the contrasts that the grid is made for, as [{method: rail-kd-l, control: vanilla-kd}]", ()
    )
    protocol: str | None = option("text file that says before the runs what will be compared and how", None)
    controls: bool = option("whether `none` and `vanilla-kd` must be among the methods", True)


@dataclass(frozen=True)
class Grid:
    """A checked grid: label -> options for tasks, students and methods; export: none for no export.

    skip: label of a task or a student -> the methods that are not run there.
    """

    tasks: Mapping[str, Options]
    students: Mapping[str, Options]
    methods: Mapping[str, Options]
    teacher: Options
    defaults: Options
    axes: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]  # or the replicates
    unit: Literal["seed", "replicate"]  # what `seeds` holds
    evaluate: Options
    export: Options | None
    search: Search | None
    skip: Mapping[str, tuple[str, ...]]
    primary: tuple[Contrast, ...] = ()  # the contrasts that the grid was made for
    protocol: str | None = None  # a text file

    def has(self, task: str, student: str, method: str) -> bool:
        """Whether a method is run on a task and a student."""
        return method not in (*self.skip.get(task, ()), *self.skip.get(student, ()))


def _names(*configs: type, without: Iterable[str] = ()) -> tuple[str, ...]:
    found = dict.fromkeys(o.name for config in configs for o in options_of(config))
    return tuple(name for name in found if name not in without)


# what the grid itself decides: paths, seeds, and what has a section of its own
_PATHS = ("output", "data_dir", "model", "teacher", "student", "seed", "data_seed", "holdout_from_train")
SHAPE = ("layers", "strategy", "keep")
# how rows are read
READING_OPTIONS = ("text_columns", "label_column", "label_map", "on_bad_rows", "max_length", "allow_pickle")
_SHARED = ("holdout_from_train",)  # for a whole task: its teacher and its students must hold out the same rows
RUN_OPTIONS = _names(DistillConfig, without=(*_PATHS, *SHAPE, "data", "method", "method_options"))
_TEACHER_OPTIONS = ("run", "model", "seed", *_names(FinetuneConfig, without=_PATHS))
_EVALUATE_OPTIONS = (
    *("sets", "suites", "files", "teacher"),
    *_names(EvaluateConfig, without=("model", "data", "suite", "output", "data_dir", "teacher")),
)
_SWITCHES = {
    "suites": "Suites of your own are named by `files`.",
    "teacher": "Which teacher it is, is said in the grid's `teacher`.",
}
_EXPORT_OPTIONS = _names(ExportConfig, without=("model", "output", "teacher", "data_dir"))
_ALLOWED = {
    "tasks": ("data", "teacher", "evaluate", *_SHARED, *RUN_OPTIONS),
    "students": _names(TruncateConfig, without=("output",)),
    "methods": ("method", "method_options", *RUN_OPTIONS),
}
# where the values of an option that is no axis are written instead
_OPTION_SECTIONS = (
    ("`seeds` or `replicates`", ("seed", "data_seed")),
    ("`methods`, a label for each", ("method",)),
    ("`students`, a label for each, as {two: {layers: 2}, three: {layers: 3}}", ("student", *_ALLOWED["students"])),
    (
        "`tasks`, a label for each, as {a: {data: sst2, teacher: {epochs: 4}}, b: {data: sst2, evaluate: {…}}}",
        ("data", "evaluate", *_SHARED, *_TEACHER_OPTIONS, *_EVALUATE_OPTIONS),
    ),
)


def parse_grid(content: Mapping[str, Any], *, controls: bool = True) -> Grid:
    """The grid in the content of a YAML file; controls=False waives the two control methods.

    Raises `ConfigError` for whatever does not exist in it, with the nearest name.
    """
    file = build(_File, {**content, "export": _switch(content.get("export"))})
    unit, numbers = _units(content, file)
    parts = {name: _part(name, getattr(file, name)) for name in _ALLOWED}
    search = None if file.search is None else read_search(file.search, _axis_types(parts["methods"]))
    grid = Grid(
        tasks=_with_teachers(parts["tasks"], file.teachers),
        students=parts["students"],
        methods=parts["methods"],
        teacher=_checked("teacher", file.teacher, _TEACHER_OPTIONS),
        defaults=_checked("defaults", file.defaults, (*_SHARED, *RUN_OPTIONS)),
        axes=_axes(file.axes, parts["methods"]),
        seeds=numbers,
        unit=unit,
        evaluate=_evaluation("evaluate", file.evaluate),
        export=None if file.export is None else _checked("export", file.export, _EXPORT_OPTIONS),
        search=search,
        skip={label: tuple(as_list(methods)) for label, methods in file.skip.items()},
        primary=read_contrasts(file.primary, parts["tasks"], parts["methods"]),
        protocol=file.protocol,
    )
    _check(grid, file.controls and controls)
    return grid


def _units(content: Mapping[str, Any], file: _File) -> tuple[Literal["seed", "replicate"], tuple[int, ...]]:
    """Return what the runs of a cell differ in, and their numbers. Raises `ConfigError` unless there is one list."""
    if "seeds" in content and "replicates" in content:
        raise ConfigError("both seeds and replicates were given; a replicate has its own seed. Remove one of them.")
    name = "replicates" if "replicates" in content else "seeds"
    numbers = file.replicates if name == "replicates" else file.seeds
    if not isinstance(content.get(name, []), list) or not numbers:
        raise ConfigError(f"{name} was given {content[name]!r}; expected a list of at least one, as [1, 2, 3, 4, 5].")
    if len(set(numbers)) != len(numbers):
        raise ConfigError(f"{name}: {list(numbers)} holds a {name.removesuffix('s')} twice.")
    return ("replicate" if name == "replicates" else "seed"), numbers


def _switch(value: Any) -> Any:
    """`export: true` is `export: {}`, and false is none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _part(section: str, content: Mapping[str, Any]) -> dict[str, Options]:
    """The labels of a section with their options. Labels become directories."""
    for label in content:
        if not _LABEL.fullmatch(label) or label in _RESERVED[section]:
            raise ConfigError(f"{section}: {label!r} cannot be a label; take letters, digits, '-', '_', '.' and '+'.")
    if not content:
        raise ConfigError(f"{section}: nothing was given; at least one is needed.")
    return {label: _checked(f"{section}.{label}", row, _ALLOWED[section]) for label, row in content.items()}


def _checked(place: str, options: Any, allowed: Iterable[str]) -> Options:
    if not isinstance(options, (dict, type(None))):
        raise ConfigError(f"{place} was given {options!r}; expected a mapping of option names to values.")
    try:
        plain = canonical_values(options or {}, allowed)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    for name in plain:
        if name not in allowed:
            raise ConfigError(f"{place}: {unknown_option(name, allowed)}")
    return plain


def _evaluation(place: str, options: Any) -> Options:
    """The checked options of an `evaluate` section."""
    found = _checked(place, options, _EVALUATE_OPTIONS)
    for name, hint in _SWITCHES.items():
        if not isinstance(value := found.get(name, True), bool):
            raise ConfigError(f"{place}.{name} was given {value!r}; expected true or false. {hint}")
    return found


def _with_teachers(tasks: Mapping[str, Options], teachers: Mapping[str, Any]) -> dict[str, Options]:
    """The tasks with their own sections checked, and their ready teachers in them."""
    for label in teachers:
        if label not in tasks:
            raise ConfigError(f"teachers: {unknown('task of this grid', label, tasks)}")
    ready = {label: {"run": teachers[label]} for label in teachers}
    return {
        label: {
            **options,
            "teacher": {
                **_checked(f"tasks.{label}.teacher", options.get("teacher"), _TEACHER_OPTIONS),
                **ready.get(label, {}),
            },
            "evaluate": _evaluation(f"tasks.{label}.evaluate", options.get("evaluate")),
        }
        for label, options in tasks.items()
    }


def _axis_types(methods: Mapping[str, Options]) -> dict[str, Any]:
    """What can be an axis or a range, with its type: options of the runs, and of the methods with a dot."""
    rows = [METHODS[n] for label, options in methods.items() if (n := method_name(label, options)) in METHODS]
    shared = {o.name: o.type for o in options_of(DistillConfig) if o.name in RUN_OPTIONS}
    return shared | {f"method_options.{o.name}": o.type for row in rows for o in options_of(row.options)}


def _axes(content: Mapping[str, Any], methods: Mapping[str, Options]) -> dict[str, tuple[Any, ...]]:
    allowed = _axis_types(methods)
    for name in content:
        if canonical(name, allowed) not in allowed and (place := _place_of(name)) is not None:
            raise ConfigError(f"axes: {name} cannot be an axis; give its values in {place}.")
    axes = _checked("axes", content, allowed)
    for name, values in axes.items():
        if not isinstance(values, list) or not values or any(values.count(v) > 1 for v in values):
            raise ConfigError(f"axes.{name} was given {values!r}; expected a list of different values.")
    return {name: tuple(values) for name, values in axes.items()}


def _place_of(name: str) -> str | None:
    """Where in a grid an option is decided that is no axis, by its name or `SECTION.NAME`; none where there is none."""
    first = RENAMED.get(name, name).partition(".")[0]
    return next((place for place, names in _OPTION_SECTIONS if first in names), None)


def method_name(label: str, options: Options) -> str:
    """The name of the method that a label stands for."""
    return str(options.get("method", label))


def _check(grid: Grid, controls: bool) -> None:
    for label, options in grid.methods.items():
        if (name := method_name(label, options)) not in METHODS and not is_file(name):
            raise ConfigError(f"methods.{label}: {unknown('method', name, METHODS)}")
    missing = [c for c in CONTROLS if c not in grid.methods or method_name(c, grid.methods[c]) != c]
    if controls and missing:
        raise ConfigError(
            f"methods: {' and '.join(missing)} missing; what a method gains is told against these controls. Add "
            "them, or waive them with --no-controls (or `controls: false` in the grid)."
        )
    _check_models(grid)
    _check_skip(grid, controls)
    _check_primary(grid)
    if grid.unit == "replicate":
        _check_replicates(grid)
    both = set(grid.axes) & set(grid.search.ranges if grid.search else ())
    if both:
        raise ConfigError(f"{', '.join(sorted(both))}: both an axis and a range of the search; choose one of them.")


def _check_models(grid: Grid) -> None:
    """Raise `ConfigError` for students that are named and cut as well, and for names that were left empty."""
    for label, options in grid.students.items():
        if "model" in options and len(options) > 1:
            others = ", ".join(name for name in options if name != "model")
            raise ConfigError(
                f"students.{label}: {others} beside `model`; a student is a model as it is, or is cut from each task's "
                "teacher. `demiglace truncate` makes a model of fewer layers."
            )
    places = {f"students.{label}": options for label, options in grid.students.items()} | {"teacher": grid.teacher}
    places |= {f"tasks.{label}.teacher": options["teacher"] for label, options in grid.tasks.items()}
    for place, options in places.items():
        for name in ("run", "model"):
            if name in options and not options[name]:
                raise ConfigError(f"{place}: `{name}` is empty; give a directory, or leave it out.")
    _check_ready_teachers(grid)


def _check_ready_teachers(grid: Grid) -> None:
    """Raise `ConfigError` for options of training beside a teacher that is there already, or for a task that has it."""
    places = {"teacher": grid.teacher} | {f"tasks.{label}.teacher": o["teacher"] for label, o in grid.tasks.items()}
    for place, options in places.items():
        ready = options.get("run") or ("model" not in options and grid.teacher.get("run"))
        training = [name for name in options if name not in ("run", *READING_OPTIONS)]
        if ready and training:
            raise ConfigError(
                f"{place}: {', '.join(training)} for a teacher that is there already, {ready}, and is not trained. "
                "Leave that out, or give `model` instead of `run`."
            )


def _check_replicates(grid: Grid) -> None:
    """Raise `ConfigError` for what replicates could not vary, and for replicate 0 where it must not be reported."""
    if 0 in grid.seeds and (grid.search is not None or grid.protocol is not None):
        raise ConfigError(
            "replicates: 0 is the replicate for choosing options (`search` uses its rows and its teacher), so a grid "
            "with a `search` or a `protocol` does not report it; take the numbers from 1 on."
        )
    fixed = {f"students.{label}": options for label, options in grid.students.items()} | {"teacher": grid.teacher}
    fixed |= {f"tasks.{label}.teacher": options["teacher"] for label, options in grid.tasks.items()}
    for place, options in fixed.items():
        if "seed" in options:
            raise ConfigError(f"{place}: `seed`, but the number of each replicate is its seed; remove it.")
        if "run" in options:
            raise ConfigError(
                f"{place}: {options['run']} is a finished teacher, which would be the same one in every replicate; "
                "give a `model` to fine-tune, or `seeds` instead of `replicates`."
            )


def _check_primary(grid: Grid) -> None:
    """Raise `ConfigError` for a contrast of two methods that `skip` leaves together on no student of a task."""
    for contrast in grid.primary:
        pair = contrast.method, contrast.control
        for task in contrast.tasks or grid.tasks:
            together = any(all(grid.has(task, s, m) for m in pair) for s in grid.students)
            if not together:
                raise ConfigError(
                    f"primary: `skip` leaves no student of {task} with both {' and '.join(pair)}; name the contrast's "
                    "`tasks`, or run both methods there."
                )


def _check_skip(grid: Grid, controls: bool) -> None:
    places = (*grid.tasks, *grid.students)
    for label, methods in grid.skip.items():
        if places.count(label) != 1:
            fault = unknown("task or student", label, places) if label not in places else f"{label!r} is both"
            raise ConfigError(f"skip: {fault}; expected the label of a task or a student of this grid.")
        for method in methods:
            if method not in grid.methods:
                raise ConfigError(f"skip.{label}: {unknown('method of this grid', method, grid.methods)}")
            if controls and method in CONTROLS:
                raise ConfigError(
                    f"skip.{label}: {method} is a control, which the other methods are told against. Leave it in, or "
                    "waive the controls with --no-controls (or `controls: false` in the grid)."
                )
    for task, student in itertools.product(grid.tasks, grid.students):
        if not any(grid.has(task, student, method) for method in grid.methods):
            raise ConfigError(f"skip: no method would be run on {task} and {student}; leave one in.")


def as_list(value: Any) -> list[Any]:
    """One value, several or none, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
