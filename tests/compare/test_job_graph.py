"""The job graph of a grid: shared jobs occur once, and every job comes after those it depends on."""

import re
from pathlib import Path

import pytest
from compare_kit import replicated

from demiglace.compare.cost import with_existing_models
from demiglace.compare.directory import register_inputs
from demiglace.compare.grid import parse_grid
from demiglace.compare.job_config import config_of
from demiglace.compare.job_graph import build_job_graph
from demiglace.compare.jobs import JobResult, is_done
from demiglace.compare.records import failure_messages, jobs_done
from demiglace.compare.scheduler import Schedule
from demiglace.compare.validate import input_files, validate_jobs
from demiglace.config.options import flatten
from demiglace.data.rows.suites import read_suite
from demiglace.errors import ConfigError, DataError, ModelError, RunError
from demiglace.runs.directory import open_run
from demiglace.runs.files import write_json

HOME = Path("runs")
RANGES = {"learning_rate": {"low": 1e-5, "high": 5e-4}, "method_options.temperature": [1, 2]}


def graph_of(content, **options):
    return build_job_graph(parse_grid(content), HOME, **options)


def assert_in_order(graph):
    seen = set()
    for job in graph.jobs:
        assert set(job.depends_on) <= seen, job.key
        assert job.key not in seen
        seen.add(job.key)


def test_shared_work_is_there_once(content):
    students = {"half": {"layers": 2}, "third": {"layers": 1}}
    graph = graph_of(content | {"students": students, "seeds": [0, 1, 2]})
    stages = [job.stage for job in graph.jobs]
    assert {s: stages.count(s) for s in stages} == {"finetune": 1, "truncate": 2, "distill": 12, "evaluate": 13}
    assert_in_order(graph)
    assert graph.job("mood/half/none/seed-2").depends_on == ("mood/teacher", "mood/half/start")
    assert {s.options["cache"] for s in graph.jobs if s.stage == "distill"} == {"runs/mood/signals"}


def test_a_narrower_student_is_made_in_each_run_where_its_units_are_measured_on_the_rows(content):
    narrow = {"layers": 2, "intermediate_size": 24}
    students = {"narrow": narrow, "by-text": narrow | {"calibration": ["text.txt"]}}
    graph = graph_of(content | {"students": students})
    assert [job.key for job in graph.jobs if job.stage == "truncate"] == ["mood/by-text/start"]
    run = graph.job("mood/narrow/none/seed-0")
    config = config_of(run, HOME)
    assert run.depends_on == ("mood/teacher",)
    assert (config.student, config.layers, config.width.intermediate_size) == (None, 2, 24)


def test_each_replicate_has_its_own_rows_teacher_signals_and_student(content):
    graph = graph_of(replicated(content, 3, 1, export={}))
    stages = [job.stage for job in graph.jobs]
    assert {s: stages.count(s) for s in stages} == {
        "finetune": 2, "truncate": 2, "distill": 4, "evaluate": 6, "export": 3
    }  # fmt: skip
    assert_in_order(graph)
    for number in (3, 1):
        teacher, start = f"mood/teacher/replicate-{number}", f"mood/half/start/replicate-{number}"
        run, evaluation = (graph.job(f"mood/half/none/replicate-{number}{end}") for end in ("", ".evaluation"))
        trained, config = (config_of(s, HOME) for s in (graph.job(teacher), run))
        assert trained.source == config.source and trained.source.data_seed == number
        assert trained.training.seed == config.training.seed == number
        assert (config.teacher, config.student) == (f"runs/{teacher}", f"runs/{start}")
        assert config.cache == f"runs/mood/signals/replicate-{number}"
        assert run.depends_on == (teacher, start) and graph.job(start).depends_on == (teacher,)
        assert config_of(graph.job(start), HOME).model == f"runs/{teacher}"
        assert config_of(evaluation, HOME).teacher == f"runs/{teacher}.evaluation"
        assert f"{teacher}.evaluation" in evaluation.depends_on
        assert config_of(graph.job(start), HOME).seed == number  # of the calibration text, where layers need it
    exports = [s.key for s in graph.jobs if s.stage == "export"]
    assert exports[0] == "mood/teacher/replicate-3.export"
    assert all(key.endswith("replicate-3.export") for key in exports)
    validate_jobs(graph)
    input_files(graph)


def test_a_shard_makes_the_teachers_of_its_own_replicates(content):
    graph = graph_of(replicated(content, 1, 2), shard=(4, 4))
    assert [run.path for run in graph.runs] == ["mood/half/vanilla-kd/replicate-2"]
    assert [s.key for s in graph.jobs if s.stage == "finetune"] == ["mood/teacher/replicate-2"]
    assert_in_order(graph)


def test_a_search_reads_nothing_of_a_reported_replicate(content):
    search = {"trials": 5, "ranges": RANGES}
    graph = graph_of(replicated(content, 1, 2, search=search), searching=True)
    assert_in_order(graph)
    for job in (s for s in graph.jobs if s.stage == "search"):
        config = config_of(job, HOME)
        assert (config.source.data_seed, config.training.seed, config.source.holdout_from_train) == (0, 0, True)
        assert (
            config.teacher == "runs/mood/teacher/replicate-0" and config.student == "runs/mood/half/start/replicate-0"
        )
        assert config.cache == "runs/mood/signals/replicate-0"
        assert job.depends_on == ("mood/teacher/replicate-0", "mood/half/start/replicate-0")
    assert "mood/teacher/replicate-0.evaluation" not in [s.key for s in graph.jobs]
    assert graph.job("mood/half/none/replicate-2").search == "mood/half/none/search"


def test_students_with_new_weights_differ_from_replicate_to_replicate(content):
    graph = graph_of(replicated(content, 1, 2, students={"half": {"layers": 2, "strategy": "random"}}))
    assert not [s.key for s in graph.jobs if s.stage == "truncate"]
    assert config_of(graph.job("mood/half/none/replicate-2"), HOME).training.seed == 2


def test_ready_teachers_and_students_are_not_made(content, place):
    ready = {"teachers": {"mood": str(place / "base")}, "students": {"own": {"model": str(place / "base")}}}
    graph = graph_of(content | ready)
    assert {job.stage for job in graph.jobs} == {"distill", "evaluate"}
    assert graph.job("mood/own/none/seed-0").depends_on == ()
    assert graph.job("mood/own/none/seed-0.evaluation").options["teacher"] == "runs/mood/teacher.evaluation"
    assert input_files(graph).keys() == {"data mood", "teacher mood", "student own"}


def test_students_with_fewer_tokens_are_truncated_first(content, place):
    trim = {"vocabulary": "trim", "vocabulary_corpus": [content["tasks"]["mood"]["data"]]}
    graph = graph_of(content | {"students": {"half": {"layers": 2} | trim, "all": trim}})
    validate_jobs(graph)
    for label, layers in (("half", 2), ("all", None)):
        start = next(job for job in graph.jobs if job.stage == "truncate" and f"/{label}/" in job.key)
        config = config_of(start, HOME)
        assert (config.layers, config.trimming.vocabulary) == (layers, "trim")
        run = graph.job(f"mood/{label}/none/seed-0")
        assert config_of(run, HOME).trimming.vocabulary == "full"  # the student has its tokens already
        planned = with_existing_models(config_of(run, HOME), graph)
        assert (planned.layers, bool(planned.student)) == (layers, layers is None)


def test_a_shard_has_what_it_needs(content):
    graph = graph_of(content, shard=(4, 4))
    assert [run.path for run in graph.runs] == ["mood/half/vanilla-kd/seed-1"]
    assert_in_order(graph)
    assert len(graph.jobs) == 5


def test_evaluation_takes_the_options_about_rows(content):
    tasks = {"mood": {**content["tasks"]["mood"], "max_length": 32, "evaluate": {"sets": ["more.csv"]}}}
    job = graph_of(content | {"tasks": tasks, "evaluate": {"teacher": False}}).job("mood/half/none/seed-0.evaluation")
    assert job.options["data"] == [content["tasks"]["mood"]["test"], "more.csv"]
    assert job.options["max_length"] == 32
    assert "mood/teacher.evaluation" not in [s.key for s in graph_of(content | {"evaluate": {"teacher": False}}).jobs]


def test_students_are_evaluated_on_rows_as_long_as_their_training_rows(content):
    methods = {**content["methods"], "short": {"method": "none", "max_length": 32}}
    graph = graph_of(content | {"methods": methods, "defaults": {"max_length": 64}})
    lengths = {key: graph.job(f"mood/{key}.evaluation").options["max_length"]
               for key in ("teacher", "half/none/seed-0", "half/short/seed-0")}  # fmt: skip
    assert lengths == {"teacher": 64, "half/none/seed-0": 64, "half/short/seed-0": 32}
    graph = graph_of(content | {"axes": {"max_length": [16, 32]}})
    assert graph.job("mood/half/none/max_length=16/seed-0.evaluation").options["max_length"] == 16
    assert "max_length" not in graph.job("mood/teacher.evaluation").options


def test_a_length_that_was_searched_for_holds_for_the_evaluation_and_the_export_too(content, tmp_path):
    search = {"trials": 1, "ranges": {"max_length": [16, 32], "learning_rate": [1e-3, 2e-3]}}
    graph = build_job_graph(parse_grid(content | {"search": search, "export": {}}), tmp_path, searching=True)
    write_best(tmp_path, "mood/half/none/search", options={"max_length": 16, "learning_rate": 2e-3})
    ends = ("", ".evaluation", ".export")
    run, evaluation, export = (config_of(graph.job(f"mood/half/none/seed-0{end}"), tmp_path) for end in ends)
    assert run.source.max_length == evaluation.max_length == export.max_length == 16
    assert run.training.learning_rate == 2e-3


def test_a_length_that_the_grid_gives_an_export_stands_above_the_search(content, tmp_path):
    search = {"trials": 1, "ranges": {"max_length": [16, 32]}}
    graph = build_job_graph(
        parse_grid(content | {"search": search, "export": {"max_length": 64}}), tmp_path, searching=True
    )
    write_best(tmp_path, "mood/half/none/search", options={"max_length": 16})
    assert config_of(graph.job("mood/half/none/seed-0.export"), tmp_path).max_length == 64


def test_rows_held_out_for_tuning_are_held_out_from_the_teacher_too(content):
    tasks = {"mood": {**content["tasks"]["mood"], "holdout_from_train": True}, "sst2": {}}
    graph = graph_of(content | {"tasks": tasks})
    tuned = {s.key for s in graph.jobs if s.options.get("holdout_from_train")}
    assert tuned == {s.key for s in graph.jobs if s.task == "mood" and s.stage in ("finetune", "distill")}
    everywhere = graph_of(content | {"defaults": {"holdout_from_train": True}})
    assert [s.options.get("holdout_from_train") for s in everywhere.jobs if s.stage in ("finetune", "distill")] == [
        True
    ] * 5
    validate_jobs(everywhere)


def test_suites_are_those_of_each_task(content):
    tasks, requested = {"sst2": {}, "cola": {}}, {"suites": True, "files": "own.yaml", "max_rows_per_set": 9}
    graph = graph_of(content | {"tasks": tasks, "evaluate": requested})
    options = [graph.job(f"{task}/half/none/seed-0.evaluation").options for task in tasks]
    assert [o["suite"] for o in options] == [["sst2", "own.yaml"], ["own.yaml"]]
    assert [o["data"] for o in options] == [["sst2"], ["cola"]]
    assert all(o["max_rows_per_set"] == 9 for o in options)


def test_one_export_a_cell_and_one_of_the_teacher(content):
    graph = graph_of(content | {"export": {"quantize": "int8"}, "seeds": [3, 4]})
    keys = [s.key for s in graph.jobs if s.stage == "export"]
    cells = [f"mood/half/{m}/seed-3.export" for m in ("none", "vanilla-kd")]
    assert keys == ["mood/teacher.export", *cells]
    assert graph_of(content | {"export": False}).jobs == graph_of(content).jobs


def test_every_method_has_a_search_of_the_same_budget(content):
    graph = graph_of(content | {"search": {"trials": 5, "ranges": RANGES}}, searching=True)
    searches = {s.key: s for s in graph.jobs if s.stage == "search"}
    assert searches.keys() == {"mood/half/none/search", "mood/half/vanilla-kd/search"}
    assert {s.trials for s in searches.values()} == {5}
    assert list(searches["mood/half/none/search"].ranges) == ["learning_rate"]
    assert all(s.options["holdout_from_train"] is True for s in searches.values())
    run = graph.job("mood/half/none/seed-1")
    assert run.search == "mood/half/none/search" and run.search in run.depends_on
    assert "holdout_from_train" not in run.options
    assert_in_order(graph)


def test_a_search_that_is_shared_lies_at_the_first_student(content):
    students = {"half": {"layers": 2}, "third": {"layers": 1}}
    search = {"trials": 5, "ranges": RANGES, "per": ["task"]}
    graph = graph_of(content | {"students": students, "search": search}, searching=True, shard=(8, 8))
    assert graph.runs[0].cell.student == "third"
    assert graph.job(graph.runs[0].path).search == "mood/half/vanilla-kd/search"
    assert_in_order(graph)


def test_students_with_new_weights_differ_from_seed_to_seed(content):
    graph = graph_of(content | {"students": {"half": {"layers": 2, "strategy": "random"}}})
    assert "mood/half/start" not in [s.key for s in graph.jobs]
    run = config_of(graph.job("mood/half/none/seed-1"), graph.root)
    assert (run.student, run.layers, run.strategy, run.training.seed) == (None, 2, "random", 1)
    validate_jobs(graph)
    same = graph_of(content | {"students": {"half": {"layers": 2, "strategy": "random", "seed": 3}}})
    assert same.job("mood/half/start").options["seed"] == 3


def test_a_run_that_was_refused_at_its_start_yields_to_another(content, tmp_path):
    longer, shorter = (
        build_job_graph(parse_grid(content | {"defaults": {"max_length": n}}), tmp_path) for n in (64, 32)
    )
    run = tmp_path / "mood/half/none/seed-0"
    claimed = flatten(config_of(longer.job("mood/half/none/seed-0"), tmp_path), result_options_only=True)
    open_run(run, "distill", claimed, {}, shared=True)
    assert not is_done(shorter.job("mood/half/none/seed-0"), tmp_path)
    (run / "log.jsonl").touch()
    with pytest.raises(
        RunError, match=f"max_length: 64 there, 32 now(.|\\n)*Or remove {run} and what was made from it"
    ):
        is_done(shorter.job("mood/half/none/seed-0"), tmp_path)


def test_a_failure_is_told_whole_and_of_a_fault_of_ours_the_last_line(content, tmp_path):
    graph = build_job_graph(parse_grid(content), tmp_path)
    for key, text in (
        ("mood/teacher", "one fault\nits cure"),
        ("mood/half/start", "Traceback (most …\n  x\nKeyError: 3"),
    ):
        (tmp_path / "failed" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "failed" / f"{key}.txt").write_text(text)
    assert failure_messages(graph) == {"mood/teacher": "one fault\nits cure", "mood/half/start": "KeyError: 3"}


def test_axes_are_no_part_of_a_search(content):
    search = {"trials": 2, "ranges": {"learning_rate": [1e-4, 1e-3]}}
    graph = graph_of(content | {"search": search, "axes": {"epochs": [4, 5]}}, searching=True)
    assert graph.job("mood/half/none/search").options["epochs"] == 1
    assert graph.job("mood/half/none/epochs=5/seed-0").search == "mood/half/none/search"


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"defaults": {"learning_rate": -1}}, ConfigError, "mood/half/none/seed-0: --learning-rate was given -1"),
        ({"methods": {"none": {}, "vanilla-kd": {"method_options": {"tau": 1}}}}, ConfigError, "unknown option 'tau'"),
        ({"methods": {"none": {}, "vanilla-kd": {}, "minilm": {"epochs": 3}}}, ConfigError, "Give --epochs 4 or more"),
        ({"students": {"half": {"layers": 0}}}, ConfigError, "mood/half/start: --layers was given 0"),
        (
            {"students": {"half": {}}},
            ConfigError,
            "mood/half/start: `layers` (how many), `keep` (which ones) or a size",
        ),
        ({"students": {"half": {"layers": 40}}}, ModelError, "mood/half/start: 40 layers were"),
        ({"students": {"half": {"layers": 40, "strategy": "random"}}}, ModelError, "mood/half/none/seed-0: 40 layers"),
        ({"students": {"half": {"layers": 2, "strategy": "greedy"}}}, ConfigError, "greedy needs text"),
        (
            {"defaults": {"patience": 2, "load_best_model_at_end": False}},
            ConfigError,
            "--patience 2 waits for a better",
        ),
        ({"teacher": {"epochs": 3}}, ConfigError, "teacher: `model` is missing for mood"),
        ({"tasks": {"gone": {"data": "gone.csv"}}}, DataError, "no file or folder gone.csv"),
        ({"teacher": {"run": "./gone"}}, ModelError, "no model at ./gone"),
        ({"evaluate": {"sets": ["gone.csv"]}}, DataError, "no file or folder gone.csv"),
        ({"evaluate": {"files": "gone.yaml"}}, ConfigError, "gone.yaml could not be read"),
        ({"evaluate": {"files": "own.json"}}, ConfigError, "unknown suite 'own.json'"),
        ({"evaluate": {"sets": ["mnli:validation_mismached"]}}, DataError, "did you mean 'validation_mismatched'"),
    ],
)
def test_what_cannot_run_is_told_before(content, sections, error, message):
    with pytest.raises(error) as caught:
        graph = graph_of(content | sections)
        validate_jobs(graph)
        input_files(graph)
    assert message in str(caught.value)


@pytest.mark.parametrize("epochs", [[3, 4], {"low": 3, "high": 8}])
def test_epochs_that_a_search_may_choose_are_checked(epochs, content):
    methods = {"methods": {"none": {}, "vanilla-kd": {}, "minilm": {"epochs": 4}}}
    graph = graph_of(content | methods | {"search": {"trials": 2, "ranges": {"epochs": epochs}}}, searching=True)
    with pytest.raises(ConfigError, match=r"minilm/search: method minilm .*Give --epochs 4 or more"):
        validate_jobs(graph)


def test_a_model_is_measured_and_exported_on_rows_read_as_in_its_training(content):
    longer = {
        "teacher": {**content["teacher"], "max_length": 64},
        "defaults": {**content["defaults"], "max_length": 32},
    }
    graph = graph_of(content | longer | {"export": {}})
    for stage in ("evaluation", "export"):
        assert graph.job(f"mood/teacher.{stage}").options["max_length"] == 64
        assert graph.job(f"mood/half/none/seed-0.{stage}").options["max_length"] == 32
    assert (
        graph_of(content | longer | {"export": {"max_length": 16}}).job("mood/teacher.export").options["max_length"]
        == 16
    )


@pytest.mark.parametrize(
    ("task", "requested", "sets"),
    [
        ({}, [], ["mnli", "mnli:validation_mismatched"]),
        ({}, ["mnli:validation_mismatched", "snli"], ["mnli", "mnli:validation_mismatched", "snli"]),
        ({"validation": "own.csv"}, [], ["own.csv"]),
    ],
)
def test_both_parts_of_mnli_are_measured(content, task, requested, sets):
    graph = graph_of(content | {"tasks": {"mnli": task}, "evaluate": {"sets": requested}})
    assert graph.job("mnli/half/none/seed-0.evaluation").options["data"] == sets
    assert graph.job("mnli/teacher.evaluation").options["data"] == sets


SUITE = "films: {data: films.csv, label_map: {good: positive, bad: negative}}\nimdb: imdb\n"


@pytest.mark.parametrize("name", ["mine.yaml", "own.yaml", "films.csv", "more.csv", "bare.csv"])
def test_no_file_of_a_grid_may_change_under_its_runs(name, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"mine.yaml": "terms: [{term: task}]\n", "own.yaml": SUITE, "films.csv": "text,label\na,good\n",
             "more.csv": "text,label\na,positive\n", "bare.csv": "text\na\n"}  # fmt: skip
    for file, text in files.items():
        Path(file).write_text(text)
    requested = {
        "evaluate": {"sets": ["more.csv", "imdb"], "files": "own.yaml"},
        "defaults": {"unlabelled": ["bare.csv"]},
    }
    graph = graph_of(content | requested | {"methods": {**content["methods"], "mine": {"method": "mine.yaml"}}})
    register_inputs(Path("runs"), input_files(graph))
    for key in ("mood/half/mine/seed-0", "mood/half/mine/seed-0.evaluation"):
        (Path("runs") / key).mkdir(parents=True)
        write_json(Path("runs") / key / "run.json", {})  # refused at their start, they have read nothing
    register_inputs(Path("runs"), input_files(graph))
    Path(name).write_text(files[name] + ("\n" if name.endswith("yaml") else "b,good\n"))
    thing = {"mine.yaml": "method mine", "own.yaml": "suite own.yaml", "films.csv": "suite own.yaml",
             "more.csv": "set more.csv", "bare.csv": "unlabelled bare.csv"}[name]  # fmt: skip
    register_inputs(Path("runs"), input_files(graph))
    for key in ("mood/half/mine/seed-0", "mood/half/mine/seed-0.evaluation"):
        (Path("runs") / key / "log.jsonl").touch()
    Path(name).write_text(files[name])
    with pytest.raises(RunError, match=f"runs: {thing} changed after runs had read it"):
        register_inputs(Path("runs"), input_files(graph))


def test_runs_of_earlier_versions_may_read_more_than_they_told(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("terms: [{term: task}]\n")
    read = input_files(graph_of(content | {"methods": {**content["methods"], "mine": {"method": "mine.yaml"}}}))
    register_inputs(Path("runs"), {"data mood": read["data mood"]})
    assert register_inputs(Path("runs"), read).keys() == {"data mood", "method mine"}


def test_the_suite_in_the_document_is_one(tmp_path):
    text = (Path(__file__).parents[2] / "docs/compare.md").read_text("utf-8")
    (tmp_path / "own.yaml").write_text(re.search(r"^```yml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1])
    suite = read_suite(tmp_path / "own.yaml")
    assert {s.data.partition(":")[0] for s in suite.values()} >= {"snli"} and len(suite) == 3


# what a search was begun with


def write_best(home, search, **content):
    (home / search).mkdir(parents=True)
    write_json(home / search / "best.json", content)


def test_the_searches_of_earlier_versions_stand_unless_their_ranges_or_trials_change(content, tmp_path):
    def job(**search):
        section = {"trials": 3, "ranges": RANGES} | search
        graph = build_job_graph(parse_grid(content | {"search": section}), tmp_path, searching=True)
        return graph.job("mood/half/none/search")

    there = {"low": 1e-5, "high": 5e-4, "log": False, "whole": False}
    write_best(
        tmp_path, "mood/half/none/search", trials=3, options={"learning_rate": 1e-4}, ranges={"learning_rate": there}
    )
    assert is_done(job(), tmp_path)
    assert not is_done(job(trials=4), tmp_path)
    with pytest.raises(RunError, match="trials: 3 there, 2 now"):
        is_done(job(trials=2), tmp_path)
    with pytest.raises(RunError, match=r"ranges: .*'high': 0.0005.* there, .*'high': 0.001.* now"):
        is_done(job(ranges={"learning_rate": {"low": 1e-5, "high": 1e-3}}), tmp_path)


def test_runs_of_no_search_are_not_searched_for_afterwards(content, tmp_path):
    graph = build_job_graph(parse_grid(content | {"search": {"trials": 3, "ranges": RANGES}}), tmp_path, searching=True)
    assert jobs_done(graph) == set()
    job = graph.job("mood/half/none/seed-1")
    open_run(tmp_path / job.key, job.stage, flatten(config_of(job, tmp_path), result_options_only=True), {})
    with pytest.raises(RunError, match="none/seed-1 was made without a search"):
        jobs_done(graph)


def test_rows_that_runs_are_trained_on_are_not_reported_on(content):
    only = {"mood": {"data": content["tasks"]["mood"]["data"]}}
    with pytest.raises(ConfigError, match="no rows to report on"):
        input_files(graph_of(content | {"tasks": only}))


# the schedule


def test_a_failure_takes_only_what_needs_it(content):
    schedule = Schedule(graph_of(content).jobs, set())
    assert [s.key for s in schedule.ready()] == ["mood/teacher"]
    for key in ("mood/teacher", "mood/half/start"):
        schedule.end(schedule.jobs[key], JobResult(1.0))
    schedule.end(schedule.jobs["mood/half/none/seed-0"], JobResult(2.0, "broken"))
    assert schedule.status["mood/half/none/seed-0.evaluation"] == "skipped"
    ready = [s.key for s in schedule.ready()]
    assert "mood/half/none/seed-1" in ready and "mood/half/vanilla-kd/seed-0" in ready
    assert (schedule.count("failed"), schedule.count("skipped")) == (1, 1)


def test_a_failed_teacher_skips_everything(content):
    schedule = Schedule(graph_of(content).jobs, set())
    schedule.end(schedule.jobs["mood/teacher"], JobResult(1.0, "broken"))
    assert schedule.finished
    assert schedule.count("skipped") == len(schedule.jobs) - 1


def test_remaining_time_comes_from_runs_alike(content):
    graph = graph_of(content | {"evaluate": {"teacher": False}})
    schedule = Schedule(graph.jobs, {"mood/teacher", "mood/half/start"})
    assert schedule.seconds_left() is None
    schedule.end(schedule.jobs["mood/half/none/seed-0"], JobResult(10.0))
    schedule.end(schedule.jobs["mood/half/none/seed-0.evaluation"], JobResult(2.0))
    assert schedule.seconds_left() == 3 * 10.0 + 3 * 2.0
    schedule.workers = 2
    assert schedule.seconds_left() == 18.0


def test_a_static_student_needs_no_truncation_and_has_its_learning_rate(content):
    students = {"half": {"layers": 2}, "bag": {"model": "static", "embedding_size": 8, "epochs": 5}}
    grid = content | {"students": students, "axes": {"batch_size": [4, 8]}}
    graph = graph_of(grid)
    assert_in_order(graph)
    assert not [job.key for job in graph.jobs if job.key.startswith("mood/bag/start")]
    config = config_of(graph.job("mood/bag/none/batch_size=4/seed-1"), HOME)
    assert (config.student, config.embedding_size, config.training.epochs) == ("static", 8, 5)
    assert config.training.learning_rate == 0.01
    assert config_of(graph.job("mood/half/none/batch_size=4/seed-1"), HOME).training.learning_rate == 2e-3
    graph = graph_of(grid | {"axes": {"learning_rate": [0.1, 0.2]}})
    assert config_of(graph.job("mood/bag/none/learning_rate=0.2/seed-1"), HOME).training.learning_rate == 0.2
    assert not [name for name in input_files(graph) if name.startswith("student")]


def test_methods_that_compare_layers_are_skipped_for_a_static_student(content):
    methods = {"none": {}, "vanilla-kd": {}, "rail-kd-l": {}}
    grid = content | {"students": {"half": {"layers": 2}, "bag": {"model": "static"}}, "methods": methods}
    with pytest.raises(ConfigError, match=re.escape("leave it out by `skip: {bag: [rail-kd-l]}`")):
        validate_jobs(graph_of(grid))
    validate_jobs(graph_of(grid | {"skip": {"bag": ["rail-kd-l"]}}))
