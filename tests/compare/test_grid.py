"""Grid files: which are refused with which message, and the cells of a grid."""

import itertools

import numpy as np
import pytest

from demiglace.compare.grid import parse_grid
from demiglace.compare.grid_cells import cells, shard_runs, skipped_names, student_runs, teacher_options, with_values
from demiglace.compare.job_graph import build_job_graph
from demiglace.compare.search_space import Range, trial_options
from demiglace.errors import ConfigError
from demiglace.results.contrasts import Contrast

PAIR = {"method": "vanilla-kd", "control": "none"}
SEARCH = {"trials": 4, "ranges": {"learning_rate": {"low": 1e-5, "high": 5e-4, "log": True}}}


def changed(content: dict, **sections) -> dict:
    return content | sections


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sedes": [0]}, "unknown option 'sedes'; did you mean 'seeds'"),
        ({"tasks": {}}, "tasks: nothing was given"),
        ({"tasks": {"sst2": {"max_row": 3}}}, "tasks.sst2: unknown option 'max_row'; did you mean 'max_rows'"),
        ({"tasks": {"sst2": 3}}, "tasks.sst2 was given 3; expected a mapping"),
        ({"tasks": {"sst2": {"teacher": {"modle": "m"}}}}, "tasks.sst2.teacher: unknown option 'modle'"),
        ({"tasks": {"../sst2": {}}}, "'../sst2' cannot be a label"),
        ({"tasks": {"logs": {}}}, "'logs' cannot be a label"),
        ({"students": {"teacher": {"layers": 2}}}, "'teacher' cannot be a label"),
        ({"students": {"half": {"layer": 2}}}, "students.half: unknown option 'layer'; did you mean 'layers'"),
        ({"defaults": {"seed": 3}}, "defaults: unknown option 'seed'"),
        ({"defaults": {"epoch": 3}}, "defaults: unknown option 'epoch'; did you mean 'epochs'"),
        ({"methods": {"none": {}}}, "vanilla-kd missing"),
        ({"methods": {"none": {"method": "pkd"}, "vanilla-kd": {}}}, "none missing"),
        ({"methods": {"rail": {}}}, "methods.rail: unknown method 'rail'; did you mean 'rail-"),
        ({"axes": {"lrr": [1]}}, "axes: unknown option 'lrr'; did you mean 'learning_rate'"),
        ({"axes": {"method_options.temprature": [1]}}, "did you mean 'method_options.temperature'"),
        ({"axes": {"layers": [2, 3]}}, "axes: layers cannot be an axis; give its values in `students`"),
        ({"axes": {"strategy": ["top", "bottom"]}}, "give its values in `students`"),
        ({"axes": {"keep": [[0, 1], [2, 3]]}}, "give its values in `students`"),
        ({"axes": {"teacher.lr": [1e-4, 1e-3]}}, "axes: teacher.lr cannot be an axis; give its values in `tasks`"),
        ({"axes": {"suite_rows": [10, 20]}}, "give its values in `tasks`"),
        ({"axes": {"holdout_from_train": [True, False]}}, "give its values in `tasks`"),
        ({"axes": {"method": ["pkd", "none"]}}, "give its values in `methods`"),
        ({"axes": {"seed": [1, 2]}}, "give its values in `seeds`"),
        (
            {"methods": {"none": {"holdout_from_train": True}, "vanilla-kd": {}}},
            "methods.none: unknown option 'holdout_from_train'",
        ),
        ({"axes": {"learning_rate": 1e-4}}, "axes.learning_rate was given 0.0001; expected a list"),
        ({"axes": {"learning_rate": [1e-4, 1e-4]}}, "expected a list of different values"),
        (
            {"primary": [PAIR | {"method": "vanila-kd"}]},
            "entry 1: unknown method of this grid 'vanila-kd'; did you mean",
        ),
        (
            {"primary": [PAIR, PAIR | {"control": "non"}]},
            "entry 2: unknown method of this grid 'non'; did you mean 'none'",
        ),
        ({"primary": [{"method": "none", "control": "none"}]}, "method and baseline are both 'none'"),
        ({"primary": [{"method": "none"}]}, "primary, entry 1: --baseline must be given"),
        ({"primary": [PAIR, PAIR]}, "entry 2: the same contrast is given twice"),
        ({"primary": [PAIR | {"tasks": ["mod"]}]}, "tasks: unknown task of this grid 'mod'; did you mean 'mood'"),
        ({"primary": [PAIR | {"tasks": "averages"}]}, "did you mean 'average'"),
        ({"primary": [PAIR | {"tasks": []}]}, "expected each, average, or different task labels"),
        ({"primary": [PAIR | {"margin": 0}]}, "--margin was given 0"),
        ({"primary": 3}, "--primary was given 3; expected a list of mappings"),
        (
            {"primary": [PAIR], "skip": {"half": ["vanilla-kd"]}, "controls": False},
            "leaves no student of mood with both vanilla-kd and none",
        ),
        ({"tasks": {"average": {"data": "sst2"}}}, "'average' cannot be a label"),
        ({"seeds": [0, 0]}, "holds a seed twice"),
        ({"replicates": [1, 2]}, "both seeds and replicates were given"),
        (
            {"axes": {"data_seed": [1, 2]}},
            "axes: data_seed cannot be an axis; give its values in `seeds` or `replicates`",
        ),
        ({"seeds": [-1]}, "--seeds was given"),
        ({"seeds": 5}, "seeds was given 5; expected a list of at least one"),
        ({"seeds": []}, "expected a list of at least one"),
        ({"teacher": {"run": "x", "epochs": 3}}, "teacher: epochs for x, a finished teacher"),
        (
            {"teacher": {"run": "x"}, "tasks": {"sst2": {"teacher": {"learning_rate": 0.1}}}},
            "tasks.sst2.teacher: learning_rate for x, a finished teacher, which is not trained",
        ),
        ({"teachers": {"sst3": "x"}}, "teachers: unknown task of this grid 'sst3'"),
        ({"evaluate": {"set": []}}, "evaluate: unknown option 'set'; did you mean 'sets'"),
        ({"evaluate": {"suites": "own.yaml"}}, "evaluate.suites was given 'own.yaml'; expected true or false"),
        ({"tasks": {"sst2": {"evaluate": {"teacher": "t"}}}}, "tasks.sst2.evaluate.teacher was given 't'"),
        ({"students": {"half": {"model": "m", "layers": 3}}}, "students.half: layers beside `model`"),
        ({"students": {"half": {"model": None}}}, "students.half: `model` is empty"),
        ({"students": {"bag": {"model": "static", "layers": 1}}}, "students.bag: layers beside `model`"),
        ({"students": {"half": {"layers": 2, "embedding_size": 8}}}, "embedding_size: only for a static student"),
        ({"teacher": {"run": None}}, "teacher: `run` is empty"),
        ({"teachers": {"mood": None}}, "tasks.mood.teacher: `run` is empty"),
        ({"export": {"quantise": "int8"}}, "did you mean 'quantize'"),
        ({"search": {"trials": 3}}, "search: --ranges must be given"),
        ({"search": SEARCH | {"ranges": {"lrs": [1]}}}, "search: unknown option 'lrs'"),
        ({"search": SEARCH | {"ranges": {"learning_rate": {"low": 2, "high": 1}}}}, "low must be below high"),
        ({"search": SEARCH | {"ranges": {"learning_rate": {"low": 0, "high": 1, "log": True}}}}, "above 0 with `log`"),
        ({"search": SEARCH | {"ranges": {"learning_rate": 3}}}, "expected a list of values"),
        ({"search": SEARCH | {"ranges": {"epochs": {"low": 1.5, "high": 3}}}}, "expected integers as `low` and `high`"),
        ({"search": SEARCH | {"per": ["method"]}}, "unknown part of a grid in `per`"),
        ({"search": SEARCH | {"trials": 0}}, "--trials was given 0"),
        ({"search": SEARCH, "axes": {"learning_rate": [1]}}, "learning_rate: both an axis and a range"),
        ({"skip": {"haf": ["none"]}}, "skip: unknown task or student 'haf'; did you mean 'half'"),
        ({"skip": {"half": ["rial-kd-l"]}}, "skip.half: unknown method of this grid 'rial-kd-l'"),
        ({"skip": {"half": "none"}}, "skip.half: none is a baseline"),
        ({"students": {"mood": {"layers": 2}}, "skip": {"mood": ["none"]}}, "'mood' is both"),
        (
            {"methods": {"none": {}}, "controls": False, "skip": {"half": ["none"]}},
            "no method is left for mood and half",
        ),
    ],
)
def test_what_is_wrong_in_a_grid_is_named(content, sections, message):
    with pytest.raises(ConfigError) as caught:
        parse_grid(changed(content, **sections))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"replicates": []}, "replicates was given []; expected a list of at least one"),
        ({"replicates": 5}, "replicates was given 5; expected a list of at least one"),
        ({"replicates": [1, 1]}, "replicates: [1, 1] holds a replicate twice"),
        ({"replicates": [-1]}, "--replicates was given"),
        ({"replicates": [0, 1], "search": SEARCH}, "0 is reserved for choosing options"),
        ({"replicates": [0, 1], "protocol": "p.md"}, "in a grid with a `search` or a `protocol`"),
        ({"teacher": {"model": "m", "seed": 3}}, "teacher: `seed` was given, but the number of each replicate"),
        ({"students": {"half": {"layers": 2, "strategy": "random", "seed": 3}}}, "students.half: `seed`"),
        ({"teacher": {"run": "ready"}}, "teacher: ready is a finished teacher, which would be the same in every"),
        ({"teachers": {"mood": "ready"}}, "tasks.mood.teacher: ready is a finished teacher"),
    ],
)
def test_what_replicates_cannot_have_is_refused(content, sections, message):
    del content["seeds"]
    with pytest.raises(ConfigError) as caught:
        parse_grid(changed(content, **{"replicates": [1, 2], **sections}))
    assert message in str(caught.value)


def test_declared_contrasts(content):
    tasks = content["tasks"] | {"sst2": {}}
    entries = [PAIR, PAIR | {"tasks": "average", "margin": 0.5}, PAIR | {"tasks": ["sst2"]}]
    assert parse_grid(changed(content, tasks=tasks, primary=entries)).primary == (
        Contrast("vanilla-kd", "none", None, False, None),
        Contrast("vanilla-kd", "none", None, True, 0.5),
        Contrast("vanilla-kd", "none", ("sst2",), False, None),
    )
    assert parse_grid(content).primary == ()


def test_baselines_can_be_waived(content):
    alone = changed(content, methods={"none": {}})
    assert list(parse_grid(alone, baselines=False).methods) == ["none"]
    assert list(parse_grid(alone | {"controls": False}).methods) == ["none"]


def test_every_combination_is_a_cell(content):
    axes = {"learning_rate": [1e-4, 5e-5], "method_options.temperature": [1, 2]}
    grid = parse_grid(changed(content, students={"half": {"layers": 2}, "third": {"layers": 1}}, axes=axes))
    paths = [cell.path for cell in cells(grid)]
    assert len(paths) == len(set(paths)) == 2 * (2 + 2 * 2)  # none has no temperature
    assert "mood/half/none/learning_rate=0.0001" in paths
    assert "mood/third/vanilla-kd/learning_rate=5e-05/temperature=2" in paths
    assert skipped_names(grid) == {"none": ["method_options.temperature"]}
    assert len(student_runs(grid)) == 2 * len(paths)


def test_methods_can_be_left_out_of_a_task_or_a_student(content):
    methods = {**content["methods"], "pkd": {}, "mate-kd": {}}
    students = {"half": {"layers": 2}, "third": {"layers": 1}}
    tasks = {"mood": content["tasks"]["mood"], "sst2": {}}
    sections = {"methods": methods, "students": students, "tasks": tasks}
    skip = {"third": ["pkd", "mate-kd"], "sst2": "mate-kd"}
    grid = parse_grid(changed(content, **sections, skip=skip))
    left = {cell.path for cell in cells(grid)}
    whole = {cell.path for cell in cells(parse_grid(changed(content, **sections)))}
    gone = {"mood/third/pkd", "mood/third/mate-kd", "sst2/third/pkd", "sst2/third/mate-kd", "sst2/half/mate-kd"}
    assert whole - left == gone and left < whole


def test_a_shared_search_is_on_the_first_place_that_has_the_method(content, tmp_path):
    sections = {"students": {"half": {"layers": 2}, "third": {"layers": 1}}, "search": SEARCH | {"per": ["task"]}}
    methods = {**content["methods"], "pkd": {}}
    grid = parse_grid(changed(content, **sections, methods=methods, skip={"half": ["pkd"]}))
    searches = [job.key for job in build_job_graph(grid, tmp_path, searching=True).jobs if job.stage == "search"]
    assert searches == ["mood/half/none/search", "mood/half/vanilla-kd/search", "mood/third/pkd/search"]


def test_the_nearer_option_wins(content):
    methods = {"none": {}, "vanilla-kd": {"epochs": 7, "method_options": {"temperature": 3, "kd_weight": 0.5}}}
    tasks = {"mood": {**content["tasks"]["mood"], "batch_size": 4, "epochs": 5}}
    axes = {"method_options.temperature": [9]}
    grid = parse_grid(changed(content, methods=methods, tasks=tasks, axes=axes))
    none, kd = cells(grid)
    assert (none.options["epochs"], none.options["batch_size"], none.options["learning_rate"]) == (5, 4, 2e-3)
    assert kd.options["epochs"] == 7
    assert kd.options["method_options"] == {"temperature": 9, "kd_weight": 0.5}
    assert grid.methods["vanilla-kd"]["method_options"]["temperature"] == 3


def test_a_label_stands_for_a_method_and_a_task(content):
    grid = parse_grid(changed(content, methods={**content["methods"], "step": {"method": "rail-kd-l"}}))
    assert [c.options["method"] for c in cells(grid)] == ["none", "vanilla-kd", "rail-kd-l"]
    assert cells(parse_grid(changed(content, tasks={"sst2": None})))[0].options["data"] == "sst2"


def test_a_teacher_shares_the_rows_and_nothing_else(content):
    tasks = {"sst2": {"max_rows": 10, "epochs": 9, "teacher": {"learning_rate": 0.5}}, "mrpc": {}}
    defaults = {"max_length": 64, "epochs": 3}
    grid = parse_grid(changed(content, tasks=tasks, defaults=defaults, teachers={"mrpc": "ready"}))
    sst2 = teacher_options(grid, "sst2")
    assert (sst2["data"], sst2["max_rows"], sst2["max_length"]) == ("sst2", 10, 64)
    assert (sst2["epochs"], sst2["learning_rate"]) == (1, 0.5)
    assert teacher_options(grid, "mrpc")["run"] == "ready"
    tasks = {"sst2": {"teacher": {"model": "m", "learning_rate": 0.5}}, "mrpc": {}}
    grid = parse_grid(changed(content, tasks=tasks, teacher={"run": "ready", "max_length": 32}))
    assert teacher_options(grid, "sst2") == {"data": "sst2", "max_length": 32, "model": "m", "learning_rate": 0.5}
    assert teacher_options(grid, "mrpc")["run"] == "ready"


@pytest.mark.parametrize("count", [1, 3, 7, 40])
def test_shards_are_parts_of_the_whole(content, count):
    runs = student_runs(parse_grid(changed(content, seeds=list(range(10)))))
    parts = [shard_runs(runs, number, count) for number in range(1, count + 1)]
    assert sorted(r.path for part in parts for r in part) == sorted(r.path for r in runs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_values_with_a_dot_go_into_the_method(content):
    options = {"learning_rate": 1, "method_options": {"u": 3}}
    assert with_values(options, {"learning_rate": 2, "method_options.t": 4}) == {
        "learning_rate": 2,
        "method_options": {"u": 3, "t": 4},
    }
    assert options == {"learning_rate": 1, "method_options": {"u": 3}}


def test_values_that_would_share_a_directory_are_refused(content):
    grid = parse_grid(changed(content, axes={"learning_rate": [0.1234567, 0.12345671]}))
    with pytest.raises(ConfigError, match=r"several cells have the directory mood/half/none/learning_rate=0\.123457"):
        cells(grid)


LISTS = {"epochs": (3, 5, 8), "method_options.temperature": (1, 2, 5)}
LEARNING_RATE = {"learning_rate": Range(1e-5, 1e-3, log=True)}


def test_no_trial_is_repeated_and_enough_trials_are_the_full_grid():
    every = list(itertools.product(*LISTS.values()))
    found = [tuple(options.values()) for options in trial_options(LISTS, 9)]
    assert sorted(found) == sorted(every)
    assert len(trial_options(LISTS, 50)) == 9
    assert sorted(o["epochs"] for o in trial_options({"epochs": Range(2, 6, whole=True)}, 9)) == [2, 3, 4, 5, 6]
    assert len(trial_options({"freeze": ([], ["wpe"])}, 9)) == 2


@pytest.mark.parametrize("count", [9, 12, 20])
def test_trials_cover_every_range_and_confound_none(count):
    found = trial_options(LEARNING_RATE | LISTS, count)
    assert len({o["learning_rate"] for o in found}) == count
    assert all(1e-5 <= o["learning_rate"] <= 1e-3 for o in found)
    shares = np.log(np.array([o["learning_rate"] for o in found]) / 1e-5) / np.log(100)
    assert np.histogram(shares, 3, (0, 1))[0].min() >= count // 3 - 1
    for name, values in LISTS.items():
        counts = [sum(o[name] == v for o in found) for v in values]
        assert min(counts) >= count // 3 - 2
        assert abs(np.corrcoef(shares, [values.index(o[name]) for o in found])[0, 1]) < 0.3


def test_more_trials_begin_with_the_same_ones():
    assert trial_options(LEARNING_RATE | LISTS, 20)[:9] == trial_options(LEARNING_RATE | LISTS, 9)
    assert trial_options(LISTS, 9)[:5] == trial_options(LISTS, 5)


@pytest.mark.parametrize("within", [Range(1, 64, log=True, whole=True), Range(2, 5, whole=True), Range(0.1, 0.3)])
def test_values_are_within_their_range(within):
    values = [options["x"] for options in trial_options({"x": within}, 50)]
    assert all(within.low <= v <= within.high for v in values)
    assert not within.whole or all(isinstance(v, int) for v in values)


def test_a_method_has_no_more_trials_than_its_ranges_have_combinations(content, tmp_path):
    search = {"trials": 9, "ranges": {"epochs": [1, 2], "method_options.temperature": [1, 2, 5]}}
    graph = build_job_graph(parse_grid(changed(content, search=search)), tmp_path, searching=True)
    assert [s.trials for s in graph.jobs if s.stage == "search"] == [2, 6]


def test_ranges(content):
    ranges = {"learning_rate": {"low": 1e-5, "high": 1e-3}, "batch_size": {"low": 4, "high": 8}, "epochs": [1, 2]}
    ranges |= {"method_options.temperature": {"low": 1, "high": 10}}
    search = parse_grid(changed(content, search={"trials": 2, "ranges": ranges})).search
    assert search.ranges == {
        "learning_rate": Range(1e-5, 1e-3),
        "batch_size": Range(4, 8, whole=True),
        "epochs": (1, 2),
        "method_options.temperature": Range(1, 10),
    }
    assert search.per == ("task", "student")
