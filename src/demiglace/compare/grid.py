"""The grid of a comparison: parsed from its YAML file and checked, so that every name in it exists."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from demiglace.compare.search_space import Search, read_search
from demiglace.config.aliases import RENAMED, canonical, canonical_values, unknown_option
from demiglace.config.command_options import (
    STATIC,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    FinetuneConfig,
    TruncateConfig,
    VocabularyConfig,
    WidthConfig,
)
from demiglace.config.options import build, option, options_of
from demiglace.errors import ConfigError, unknown
from demiglace.methods.registry import find_method, is_file, method_names
from demiglace.results.contrasts import Contrast, read_contrasts
from demiglace.results.schema import BASELINES

Options = Mapping[str, Any]
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_RESERVED = {
    "tasks": ("logs", "failed", "locks", "each", "average"),
    "students": ("teacher", "signals"),
    "methods": ("start",),
}


@dataclass(frozen=True)
class _File:
    """The sections of a grid file."""

    tasks: dict[str, Any] = option("label -> options for this task; `data` defaults to the label")
    students: dict[str, Any] = option("label -> how the teacher is truncated, or {model: DIR}, or {model: static}")
    methods: dict[str, Any] = option("label -> options; `method` defaults to the label")
    teacher: dict[str, Any] = option("how the teacher of each task is fine-tuned, or {run: DIR}", {})
    teachers: dict[str, Any] = option("task -> run directory of a finished teacher", {})
    defaults: dict[str, Any] = option("options of every student run; those about rows apply to the teachers too", {})
    axes: dict[str, Any] = option("option -> values; each combination is a cell of the grid", {})
    skip: dict[str, Any] = option("label of a task or student -> methods that are not run for it", {})
    seeds: tuple[int, ...] = option("seeds of every cell", (0, 1, 2, 3, 4), at_least=0)
    replicates: tuple[int, ...] = option(
        "instead of `seeds`: each number seeds the training rows, the teacher, the student and the run",
        (),
        at_least=0,
    )
    evaluate: dict[str, Any] = option(
        "sets: further sets; suites: true for each task's suite; files: your suites; teacher: false to leave it out",
        {},
    )
    export: dict[str, Any] | None = option("options of `demiglace export`, or true", None)
    search: dict[str, Any] | None = option("trials, ranges, per: the search of --search optuna", None)
    primary: tuple[dict[str, Any], ...] = option(
        "primary contrasts, as [{method: rail-kd-l, baseline: vanilla-kd}]", ()
    )
    protocol: str | None = option("text file that declares, before the runs, what is compared and how", None)
    baselines: bool = option("require `none` and `vanilla-kd` among the methods", True)


@dataclass(frozen=True)
class Grid:
    """A checked grid."""

    tasks: Mapping[str, Options]  # label -> options
    students: Mapping[str, Options]  # label -> options of the truncation, or {model: DIR} or {model: static, …}
    methods: Mapping[str, Options]  # label -> options
    teacher: Options  # of every task's fine-tuning, or {run: DIR}
    defaults: Options  # of every student run
    axes: Mapping[str, tuple[Any, ...]]  # option -> values
    seeds: tuple[int, ...]  # the seeds, or the numbers of the replicates
    unit: Literal["seed", "replicate"]  # what `seeds` holds
    evaluate: Options
    export: Options | None  # None: no export
    search: Search | None
    skip: Mapping[str, tuple[str, ...]]  # label of a task or student -> methods that are not run for it
    primary: tuple[Contrast, ...] = ()  # the primary contrasts
    protocol: str | None = None  # path of a text file

    def has(self, task: str, student: str, method: str) -> bool:
        """Return whether a method is run for a task and a student."""
        return method not in (*self.skip.get(task, ()), *self.skip.get(student, ()))


def _names(config: type, without: Iterable[str] = ()) -> tuple[str, ...]:
    return tuple(o.name for o in options_of(config) if o.name not in without)


# options that the grid sets: paths, seeds, and those with their own section
_PATHS = ("output", "data_dir", "model", "teacher", "student", "seed", "data_seed", "holdout_from_train")
SHAPE = ("layers", "strategy", "keep", *_names(WidthConfig), *_names(VocabularyConfig))
_STATIC_ONLY = ("embedding_size", "learning_rate", "epochs")
STATIC_OPTIONS = (*_STATIC_ONLY, *_names(VocabularyConfig))  # of a student {model: static}
# options for reading rows
READING_OPTIONS = ("text_columns", "label_column", "label_map", "on_bad_rows", "max_length", "allow_pickle")
_SHARED = ("holdout_from_train",)  # of a task, since its teacher and its students must hold out the same rows
RUN_OPTIONS = _names(DistillConfig, without=(*_PATHS, *SHAPE, "embedding_size", "data", "method", "method_options"))
_TEACHER_OPTIONS = ("run", "model", "seed", *_names(FinetuneConfig, without=_PATHS))
_EVALUATE_OPTIONS = (
    *("sets", "suites", "files", "teacher"),
    *_names(EvaluateConfig, without=("model", "data", "suite", "output", "data_dir", "teacher")),
)
_SWITCHES = {
    "suites": "List your suite files in `files`.",
    "teacher": "Give the teacher itself in the section `teacher` of the grid.",
}
_EXPORT_OPTIONS = _names(ExportConfig, without=("model", "output", "teacher", "data_dir"))
_ALLOWED = {
    "tasks": ("data", "teacher", "evaluate", *_SHARED, *RUN_OPTIONS),
    "students": (*_names(TruncateConfig, without=("output",)), *_STATIC_ONLY),
    "methods": ("method", "method_options", *RUN_OPTIONS),
}
# where to give the values of an option that cannot be an axis
_OPTION_SECTIONS = (
    ("`seeds` or `replicates`", ("seed", "data_seed")),
    ("`methods`, a label for each", ("method",)),
    ("`students`, a label for each, as {two: {layers: 2}, three: {layers: 3}}", ("student", *_ALLOWED["students"])),
    (
        "`tasks`, a label for each, as {a: {data: sst2, teacher: {epochs: 4}}, b: {data: sst2, evaluate: {…}}}",
        ("data", "evaluate", *_SHARED, *_TEACHER_OPTIONS, *_EVALUATE_OPTIONS),
    ),
)

_RENAMED_KEYS = {"controls": "baselines"}  # names of version 0.1


def parse_grid(content: Mapping[str, Any], *, baselines: bool = True) -> Grid:
    """Parse and check the content of a grid file.

    Args:
        content: the parsed YAML.
        baselines: require the two baseline methods.

    Raises:
        ConfigError: a section is invalid, or a name does not exist (the message gives the nearest one).
    """
    content = {_RENAMED_KEYS.get(key, key): value for key, value in content.items()}
    file = build(_File, {**content, "export": _switch(content.get("export"))})
    unit, numbers = _units(content, file)
    parts = {name: _labelled(name, getattr(file, name)) for name in _ALLOWED}
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
    _check(grid, file.baselines and baselines)
    return grid


def _units(content: Mapping[str, Any], file: _File) -> tuple[Literal["seed", "replicate"], tuple[int, ...]]:
    """Return the unit of the runs of a cell, seed or replicate, and their numbers.

    Raises `ConfigError` unless one list of different numbers is given.
    """
    if "seeds" in content and "replicates" in content:
        raise ConfigError(
            "both seeds and replicates were given; expected one of them: each replicate is a seed. Remove one."
        )
    name = "replicates" if "replicates" in content else "seeds"
    numbers = file.replicates if name == "replicates" else file.seeds
    if not isinstance(content.get(name, []), list) or not numbers:
        raise ConfigError(
            f"{name} was given {content[name]!r}; expected a list of at least one number, as [1, 2, 3, 4, 5]."
        )
    if len(set(numbers)) != len(numbers):
        raise ConfigError(f"{name}: {list(numbers)} holds a {name.removesuffix('s')} twice.")
    return ("replicate" if name == "replicates" else "seed"), numbers


def _switch(value: Any) -> Any:
    """Convert true to {} and false to None, so that `export: true` exports with the defaults."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _labelled(section: str, content: Mapping[str, Any]) -> dict[str, Options]:
    """Check a section of labels and their options. Labels become names of directories."""
    for label in content:
        if not _LABEL.fullmatch(label) or label in _RESERVED[section]:
            raise ConfigError(f"{section}: {label!r} cannot be a label; use letters, digits, '-', '_', '.' and '+'.")
    if not content:
        raise ConfigError(f"{section}: nothing was given; at least one is needed.")
    return {label: _checked(f"{section}.{label}", row, _ALLOWED[section]) for label, row in content.items()}


def _checked(section: str, options: Any, allowed: Iterable[str]) -> Options:
    if not isinstance(options, (dict, type(None))):
        raise ConfigError(f"{section} was given {options!r}; expected a mapping of option names to values.")
    try:
        plain = canonical_values(options or {}, allowed)
    except ConfigError as error:
        raise ConfigError(f"{section}: {error}") from error
    for name in plain:
        if name not in allowed:
            raise ConfigError(f"{section}: {unknown_option(name, allowed)}")
    return plain


def _evaluation(section: str, options: Any) -> Options:
    """Check the options of a section `evaluate`."""
    checked = _checked(section, options, _EVALUATE_OPTIONS)
    for name, hint in _SWITCHES.items():
        if not isinstance(value := checked.get(name, True), bool):
            raise ConfigError(f"{section}.{name} was given {value!r}; expected true or false. {hint}")
    return checked


def _with_teachers(tasks: Mapping[str, Options], teachers: Mapping[str, Any]) -> dict[str, Options]:
    """Check the sections `teacher` and `evaluate` of each task, and add the finished teachers of `teachers`."""
    for label in teachers:
        if label not in tasks:
            raise ConfigError(f"teachers: {unknown('task of this grid', label, tasks)}")
    finished = {label: {"run": teachers[label]} for label in teachers}
    return {
        label: {
            **options,
            "teacher": {
                **_checked(f"tasks.{label}.teacher", options.get("teacher"), _TEACHER_OPTIONS),
                **finished.get(label, {}),
            },
            "evaluate": _evaluation(f"tasks.{label}.evaluate", options.get("evaluate")),
        }
        for label, options in tasks.items()
    }


def _axis_types(methods: Mapping[str, Options]) -> dict[str, Any]:
    """What can be an axis or a range, with its type: options of the runs, and of the methods with a dot."""
    known = method_names()
    rows = [find_method(n) for label, options in methods.items() if (n := method_name(label, options)) in known]
    shared = {o.name: o.type for o in options_of(DistillConfig) if o.name in RUN_OPTIONS}
    return shared | {f"method_options.{o.name}": o.type for row in rows for o in options_of(row.options)}


def _axes(content: Mapping[str, Any], methods: Mapping[str, Options]) -> dict[str, tuple[Any, ...]]:
    allowed = _axis_types(methods)
    for name in content:
        if canonical(name, allowed) not in allowed and (section := _section_of(name)) is not None:
            raise ConfigError(f"axes: {name} cannot be an axis; give its values in {section}.")
    axes = _checked("axes", content, allowed)
    for name, values in axes.items():
        if not isinstance(values, list) or not values or any(values.count(v) > 1 for v in values):
            raise ConfigError(f"axes.{name} was given {values!r}; expected a list of different values.")
    return {name: tuple(values) for name, values in axes.items()}


def _section_of(name: str) -> str | None:
    """Return where in a grid an option that is no axis is given, by its name or `SECTION.NAME`; None if nowhere."""
    first = RENAMED.get(name, name).partition(".")[0]
    return next((section for section, names in _OPTION_SECTIONS if first in names), None)


def method_name(label: str, options: Options) -> str:
    """Return the name of the method of a label."""
    return str(options.get("method", label))


def _check(grid: Grid, baselines: bool) -> None:
    for label, options in grid.methods.items():
        if (name := method_name(label, options)) not in (known := method_names()) and not is_file(name):
            raise ConfigError(f"methods.{label}: {unknown('method', name, known)}")
    missing = [c for c in BASELINES if c not in grid.methods or method_name(c, grid.methods[c]) != c]
    if baselines and missing:
        raise ConfigError(
            f"methods: {' and '.join(missing)} missing; every method is compared with these baselines. Add "
            "them, or waive them with --no-baselines (or `baselines: false` in the grid)."
        )
    _check_models(grid)
    _check_skip(grid, baselines)
    _check_primary(grid)
    if grid.unit == "replicate":
        _check_replicates(grid)
    both = set(grid.axes) & set(grid.search.ranges if grid.search else ())
    if both:
        raise ConfigError(f"{', '.join(sorted(both))}: both an axis and a range of the search; choose one of them.")


def _check_models(grid: Grid) -> None:
    """Raise `ConfigError` for a student with both `model` and options of truncation, and for empty names."""
    for label, options in grid.students.items():
        static = options.get("model") == STATIC
        if not static and (wrong := [name for name in _STATIC_ONLY if name in options]):
            raise ConfigError(
                f"students.{label}: {', '.join(wrong)}: only for a static student, {{model: static}}; give the options "
                "of other students in `defaults`, `tasks` or `methods`."
            )
        others = ", ".join(name for name in options if name != "model" and not (static and name in STATIC_OPTIONS))
        if "model" in options and others:
            raise ConfigError(
                f"students.{label}: {others} beside `model`; a student is either a model as it is or a truncation of "
                "each task's teacher. Remove one of them, or truncate a model with `demiglace truncate`."
            )
    sections = {f"students.{label}": options for label, options in grid.students.items()} | {"teacher": grid.teacher}
    sections |= {f"tasks.{label}.teacher": options["teacher"] for label, options in grid.tasks.items()}
    for section, options in sections.items():
        for name in ("run", "model"):
            if name in options and not options[name]:
                raise ConfigError(f"{section}: `{name}` is empty; give a directory, or leave it out.")
    _check_finished_teachers(grid)


def _check_finished_teachers(grid: Grid) -> None:
    """Raise `ConfigError` for training options of a finished teacher, which is not trained."""
    sections = {"teacher": grid.teacher} | {f"tasks.{label}.teacher": o["teacher"] for label, o in grid.tasks.items()}
    for section, options in sections.items():
        finished = options.get("run") or ("model" not in options and grid.teacher.get("run"))
        training = [name for name in options if name not in ("run", *READING_OPTIONS)]
        if finished and training:
            raise ConfigError(
                f"{section}: {', '.join(training)} for {finished}, a finished teacher, which is not trained. "
                "Leave these options out, or give `model` instead of `run`."
            )


def _check_replicates(grid: Grid) -> None:
    """Raise `ConfigError` for seeds or teachers that replicates cannot vary, and for a reported replicate 0."""
    if 0 in grid.seeds and (grid.search is not None or grid.protocol is not None):
        raise ConfigError(
            "replicates: 0 is reserved for choosing options (`search` uses its rows and its teacher) in a grid with a "
            "`search` or a `protocol`; use numbers from 1 on."
        )
    fixed = {f"students.{label}": options for label, options in grid.students.items()} | {"teacher": grid.teacher}
    fixed |= {f"tasks.{label}.teacher": options["teacher"] for label, options in grid.tasks.items()}
    for section, options in fixed.items():
        if "seed" in options:
            raise ConfigError(f"{section}: `seed` was given, but the number of each replicate is its seed; remove it.")
        if "run" in options:
            raise ConfigError(
                f"{section}: {options['run']} is a finished teacher, which would be the same in every replicate; "
                "give a `model` to fine-tune, or `seeds` instead of `replicates`."
            )


def _check_primary(grid: Grid) -> None:
    """Raise `ConfigError` for a primary contrast whose two methods have no student of a task in common."""
    for contrast in grid.primary:
        pair = contrast.method, contrast.baseline
        for task in contrast.tasks or grid.tasks:
            together = any(all(grid.has(task, s, m) for m in pair) for s in grid.students)
            if not together:
                raise ConfigError(
                    f"primary: `skip` leaves no student of {task} with both {' and '.join(pair)}; name the contrast's "
                    "`tasks`, or run both methods on one student."
                )


def _check_skip(grid: Grid, baselines: bool) -> None:
    labels = (*grid.tasks, *grid.students)
    for label, methods in grid.skip.items():
        if labels.count(label) != 1:
            fault = unknown("task or student", label, labels) if label not in labels else f"{label!r} is both"
            raise ConfigError(f"skip: {fault}; expected the label of a task or a student of this grid.")
        for method in methods:
            if method not in grid.methods:
                raise ConfigError(f"skip.{label}: {unknown('method of this grid', method, grid.methods)}")
            if baselines and method in BASELINES:
                raise ConfigError(
                    f"skip.{label}: {method} is a baseline, with which every method is compared. Take it out of "
                    "`skip`, or waive the baselines with --no-baselines (or `baselines: false` in the grid)."
                )
    for task, student in itertools.product(grid.tasks, grid.students):
        if not any(grid.has(task, student, method) for method in grid.methods):
            raise ConfigError(f"skip: no method is left for {task} and {student}; remove one from `skip`.")


def as_list(value: Any) -> list[Any]:
    """Return a value as a list: None is empty, a list or tuple its entries, anything else one entry."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
