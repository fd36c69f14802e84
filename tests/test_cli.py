"""From words to option values, and the commands' exit codes."""

import json
import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from demiglace import __version__, cli, console
from demiglace.config.aliases import ALIASES
from demiglace.config.arguments import parse
from demiglace.config.command_options import (
    DistillConfig,
    EvaluateConfig,
    FinetuneConfig,
    GenerateConfig,
    PlanConfig,
    ReportConfig,
    TruncateConfig,
)
from demiglace.config.options import build, option, options_of
from demiglace.errors import ConfigError, DataError
from demiglace.methods.names import option_names
from demiglace.runs.result import Result, number_table


@dataclass(frozen=True)
class Options:
    """An option of each kind."""

    lr: float = option("learning rate", 1e-4)
    keep: tuple[int, ...] | None = option("layers", None)
    columns: tuple[str, ...] | None = option("columns", None)
    label: str | None = option("label column", None)
    fast: bool = option("be fast", False)
    extra: dict[str, Any] = option("anything", {})
    label_map: dict[str, str | list[str] | None] = option("label names", {})
    output: Path = option("where to", Path("out"), short="-o")


def read(*words: str) -> Options:
    return build(Options, parse(words, options_of(Options)))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--lr 1e-3", "lr", 0.001),
        ("--lr=1e-3", "lr", 0.001),
        ("--lr -1", "lr", -1.0),
        ("--lr -.5", "lr", -0.5),
        ("--lr 1 --lr 2", "lr", 2.0),
        ("--keep 0,2,5", "keep", (0, 2, 5)),
        ("--keep 0 2 5 --fast", "keep", (0, 2, 5)),
        ("--keep [0,2]", "keep", (0, 2)),
        ("--keep 0 --keep=2", "keep", (0, 2)),
        ("--keep none", "keep", None),
        ("--columns 3,no", "columns", ("3", "no")),
        ("--label 3", "label", "3"),
        ("--label none", "label", None),
        ("--label=--x=1", "label", "--x=1"),
        ("--label=", "label", ""),
        ("--fast", "fast", True),
        ("--fast false", "fast", False),
        ("--fast=true", "fast", True),
        ("--fast -o a", "output", Path("a")),
        ("-o=a.b", "output", Path("a.b")),
        ("--extra.tau 1e-3 --extra.u 3 --extra.how epoch", "extra", {"tau": 0.001, "u": 3, "how": "epoch"}),
        ("--extra.layers=[1,2]", "extra", {"layers": [1, 2]}),
        ("--extra {tau:\u00a02,u:\u00a0-1}", "extra", {"tau": 2, "u": -1}),
        ("--label_map.not-one no --label-map.a.b 1", "label_map", {"not-one": "no", "a.b": "1"}),
        ("--label-map {0:\u00a01,'no':\u00a0none}", "label_map", {"0": "1", "no": "none"}),
        ("--label-map {a:\u00a0[b,c],d:\u00a0null}", "label_map", {"a": ["b", "c"], "d": None}),
        (
            "--label-map.a [b,no] --label-map.d null --label-map.e 3",
            "label_map",
            {"a": ["b", "no"], "d": None, "e": "3"},
        ),
    ],
)
def test_words_to_values(words, name, value):
    found = getattr(read(*(w.replace("\u00a0", " ") for w in words.split(" "))), name)
    assert found == value
    assert type(found) is type(value)


def test_texts_that_are_whole_keep_their_commas():
    options = options_of(GenerateConfig)
    line = ["model", "--prompt", "Once, there was", "[a, b]", "--prompt= and, so"]
    assert parse(line, options)["prompt"] == ["Once, there was", "[a, b]", " and, so"]


def test_items_that_hold_a_comma_are_given_as_a_yaml_list():
    assert read("--columns", '["a, b", c]').columns == ("a, b", "c")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epoch 3", "unknown option '--epoch'"),
        ("--colums a", "did you mean '--columns'?"),
        ("--l 3", "unknown option '--l'"),
        ("--lr", "--lr needs a value"),
        ("--label --fast", "--label needs a value (one that begins with a dash is given as --label=VALUE)"),
        ("--keep --fast", "--keep needs a value"),
        ("--extra.tau", "--extra.tau needs a value"),
        ("--config", "--config needs a value"),
        ("--lr.x 3", "--lr.x was given, but --lr takes a number"),
        ("--extra {a", "--extra was given '{a'; expected a mapping"),
        ("--label-map {no:\u00a0x}", "--label-map was given {False: 'x'}; expected a mapping of names to names (with"),
        ("--extra tau=1", "--extra was given 'tau=1'; expected a mapping"),
        ("--fast=maybe", "--fast was given 'maybe'; expected true or false"),
        ("word", "'word' was given, but there is no place for it"),
        ("--", "unknown option '--'"),
    ],
)
def test_words_that_mean_nothing(words, message):
    with pytest.raises(ConfigError) as caught:
        read(*(w.replace("\u00a0", " ") for w in words.split(" ")))
    assert message in str(caught.value)


def test_flags_lie_over_files_wherever_they_stand(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("lr: 1\nkeep: [0, 1]\nextra: {tau: 1, u: 2}\nlabel: a\n")
    second.write_text("label: b\n")
    flags = ["--lr", "3", "--keep", "5", "--extra.tau", "4"]
    files = ["--config", str(first), f"--config={second}"]
    for words in ([*flags, *files], [*files, *flags], [*flags[:2], *files, *flags[2:]]):
        assert read(*words) == Options(lr=3.0, keep=(5,), extra={"tau": 4, "u": 2}, label="b")


def test_a_file_that_is_not_there_is_named_with_its_flag():
    with pytest.raises(ConfigError, match=r"--config gone\.yaml could not be read"):
        read("--config", "gone.yaml")


def test_a_wrong_key_in_a_file_names_the_file_and_the_nearest_key(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("label_mp: {a: b}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: unknown option 'label_mp'; did you mean 'label_map'"):
        read("--config", str(file))


def test_positional_words():
    truncate = parse(["bert", "--layers", "3", "-o", "out"], options_of(TruncateConfig))
    assert truncate == {"model": "bert", "layers": "3", "output": "out"}
    assert parse(["a", "b", "-o", "p", "c"], options_of(ReportConfig))["runs"] == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="no place for it"):
        parse(["bert", "roberta"], options_of(TruncateConfig))
    with pytest.raises(ConfigError, match=r"'bert' was given, but .* start with --, as in --model bert"):
        parse(["bert", "--data", "sst2"], options_of(FinetuneConfig))


def test_positional_words_lie_over_files(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("runs: [old]\n")
    assert parse(["new", "--config", str(file)], options_of(ReportConfig))["runs"] == ["new"]


def test_a_command_of_the_issue():
    words = "--teacher T --layers 3 --strategy alternate --data sst2 --method rail-kd-l --seed 1 -o RUN"
    config = build(DistillConfig, parse([*words.split(), "--method-options.u", "128"], options_of(DistillConfig)))
    assert (config.layers, config.training.seed, config.method_options) == (3, 1, {"u": 128})
    evaluate = parse(["RUN", "--data", "mnli", "mnli:test", "-o", "OUT"], options_of(EvaluateConfig))
    assert build(EvaluateConfig, evaluate).data == ("mnli", "mnli:test")


# --- main ---


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Replaces the stage of `truncate` by a function of the test's choice; `bert` is a model here."""
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)

    def install(function):
        module = types.ModuleType("demiglace.commands.truncate")
        module.truncate = function
        monkeypatch.setitem(sys.modules, "demiglace.commands.truncate", module)

    return install


TRUNCATE = ["truncate", "bert", "--layers", "3", "-o", "out"]


def test_success_is_0_and_the_stage_gets_the_config(stage):
    seen = []
    stage(seen.append)
    assert cli.main(TRUNCATE) == 0
    assert seen == [TruncateConfig("bert", Path("out"), layers=3)]


def test_a_user_error_is_2_and_shows_no_traceback(stage, capsys):
    def fail(_):
        raise DataError("rows.csv, line 3: no label.")

    stage(fail)
    assert cli.main(TRUNCATE) == 2
    assert capsys.readouterr() == ("", "error: rows.csv, line 3: no label.\n")


def test_an_interrupt_is_130(stage, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    stage(interrupt)
    assert cli.main(TRUNCATE) == 130
    assert "repeat the same command" in capsys.readouterr().err


def test_our_own_fault_is_1_with_a_traceback(tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    code = """
import sys, types
module = sys.modules["demiglace.commands.truncate"] = types.ModuleType("demiglace.commands.truncate")
def truncate(config): raise ZeroDivisionError("ours")
module.truncate = truncate
from demiglace.cli import main
sys.exit(main(["truncate", "bert", "--layers", "3", "-o", "out"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: ours" in done.stderr


@pytest.mark.parametrize("words", [["distil"], ["Distill"], ["distill", "--techer", "x"], ["truncate", "m", "m2"]])
def test_wrong_words_are_2(words, capsys):
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_an_unknown_command_suggests_the_nearest(capsys):
    cli.main(["distil"])
    assert "unknown command 'distil'; did you mean 'distill'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_the_overview_lists_all_commands(words, capsys):
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_lists_every_option_with_its_default(name, capsys):
    assert cli.main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    for o in options_of(cli.config_class_of(name)):
        assert f"  {o.name.upper()}\n" in shown if o.positional else f"{o.flag}\n" in shown
        assert " ".join(o.help.split()) in " ".join(shown.split())
    assert f"usage: demiglace {name}" in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_each_option_once_the_most_used_first(name, capsys):
    cli.main([name, "--help"])
    shown = capsys.readouterr().out
    options = options_of(cli.config_class_of(name))
    common = [o for o in options if o.common]
    assert len(common) <= 15
    assert {o.section for o in options} <= {*cli._SECTIONS}
    flags = re.findall(r"^  (?:-o, )?(--[a-z0-9-]+|[A-Z]+)$", shown, re.MULTILINE)
    named = [o.name.upper() if o.positional else o.flag for o in options]
    assert sorted(flags) == sorted([*named, "--print-config", "--json", "--quiet"])
    if common:
        first = shown[shown.index("most used:") :].split("\n\n")[0]
        assert all((o.name.upper() if o.positional else o.flag) in first for o in common)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_example_of_a_command_is_accepted(name):
    kind = cli.config_class_of(name)
    build(kind, parse(shlex.split(cli.COMMANDS[name].example), options_of(kind)))


@pytest.mark.parametrize("name", ["distill", "truncate", "plan", "report"])
def test_a_command_without_options_prints_its_usage(name, capsys):
    assert cli.main([name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"usage: demiglace {name}")
    assert all(o.flag in err for o in options_of(cli.config_class_of(name)) if o.common and not o.positional)


def test_an_unknown_flag_shows_near_names_the_usage_and_who_has_it(capsys):
    assert cli.main(["finetune", "--layers", "3"]) == 2
    first, usage = capsys.readouterr().err.splitlines()
    assert first.endswith("It is an option of compress, demo, truncate, distill, plan.")
    assert usage == "usage: demiglace finetune --model MODEL --output OUTPUT [options]"
    cli.main(["distill", "--cach-token", "x"])
    error = capsys.readouterr().err
    assert 1 <= error.splitlines()[0].count("--cache") <= 3 and "Known" not in error


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--devices 2", "torchrun --nproc-per-node"),
        ("--temperature 2", "--method-options.temperature"),
        ("--gradient-accumulation-steps 2", "--batch-tokens"),
    ],
)
def test_what_other_libraries_have_is_explained(words, hint, capsys):
    assert cli.main(["distill", *words.split()]) == 2
    assert hint in capsys.readouterr().err


# --- other names of options ---


def distill_config(*words: str) -> DistillConfig:
    words = ("--teacher", "t", "--output", "o", *words)
    return build(DistillConfig, parse(words, options_of(DistillConfig)))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--lr 1e-3", "learning_rate", 1e-3),
        ("--learning_rate 1e-3", "learning_rate", 1e-3),
        ("--num_train_epochs 2", "epochs", 2),
        ("--per_device_train_batch_size 8", "batch_size", 8),
        ("--clip 2", "max_grad_norm", 2.0),
        ("--warmup 0.1", "warmup_ratio", 0.1),
        ("--bf16", "precision", "bf16"),
        ("--bf16 false", "precision", "fp32"),
        ("--bf16=true --lr 1", "precision", "bf16"),
        ("--track tensorboard", "report_to", ("tensorboard",)),
    ],
)
def test_other_names_of_training_options(words, name, value):
    assert getattr(distill_config(*words.split()).training, name) == value


def test_other_names_in_files_and_python_are_printed_as_the_options_names(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("teacher: t\noutput_dir: o\nlr: 1e-3\ntune: true\nmasked-share: 0.2\nbf16: true\n")
    words = ["distill", "--config", str(file), "--learning-rate", "2e-3", "--print-config"]
    assert cli.main(words) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["learning_rate"], shown["output"], shown["mlm_probability"]) == (2e-3, "o", 0.2)
    assert shown["holdout_from_train"] is True and shown["precision"] == "bf16"
    assert shown.keys().isdisjoint(ALIASES)
    python = build(DistillConfig, {"teacher": "t", "output_dir": "o", "num_train_epochs": 2, "fp16": False})
    assert (python.output, python.training.epochs, python.training.precision) == (Path("o"), 2, "fp32")


def test_an_option_under_two_names_is_refused():
    with pytest.raises(ConfigError, match="lr and learning_rate are the same option"):
        build(DistillConfig, {"teacher": "t", "output": "o", "lr": 1, "learning_rate": 2})


def test_names_of_training_arguments_are_accepted():
    words = ["--fp16", "--gradient_checkpointing", "--max_steps", "70", "--lr_scheduler_type", "warmup_stable_decay"]
    training = distill_config(*words).training
    assert (training.precision, training.gradient_checkpointing) == ("fp16", True)
    assert (training.max_steps, training.lr_scheduler) == (70, "wsd")
    python = build(DistillConfig, {"teacher": "t", "output": "o", "lr_scheduler_type": "constant_with_warmup"})
    assert python.training.lr_scheduler == "constant"
    with pytest.raises(ConfigError, match="--lr-scheduler was given 'polynomial'; expected one of linear, cosine"):
        distill_config("--lr_scheduler_type", "polynomial")


def test_a_batch_size_for_one_device_is_multiplied(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert distill_config("--per_device_train_batch_size", "8").training.batch_size == 32
    words = ["--teacher", "t", "--per-device-train-batch-size", "8", "--devices", "2"]
    assert build(PlanConfig, parse(words, options_of(PlanConfig))).training.batch_size == 16


def test_every_alias_is_of_an_option_and_hides_none():
    names = {o.name for name in cli.COMMANDS for o in options_of(cli.config_class_of(name))}
    assert {*ALIASES.values()} <= names
    assert names.isdisjoint(ALIASES)


# --- results ---


def test_the_result_is_printed_on_standard_output(stage, capsys):
    result = Result(Path("out"), {"validation": {"accuracy": 0.5}}, (number_table("Metrics", {"test": {"f1": 0.5}}),))
    stage(lambda config: result)
    assert cli.main(TRUNCATE) == 0
    out = capsys.readouterr().out
    assert "0.5000" in out and out.splitlines()[-1] == "out"
    assert cli.main([*TRUNCATE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "out", "metrics": {"validation": {"accuracy": 0.5}}}


def test_quiet_leaves_out_lines_but_not_warnings(stage, capsys):
    def speak(_):
        console.say("a line")
        console.say("warning: a warning")

    stage(speak)
    assert cli.main([*TRUNCATE, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "warning: a warning\n")
    assert cli.main(TRUNCATE) == 0
    assert capsys.readouterr().err == "a line\nwarning: a warning\n"


# --- checks before torch ---

WRONG = {
    "--method vanila-kd": "did you mean 'vanilla-kd'",
    "--method pkd --method-options.temprature 2": "method pkd: unknown option 'temprature'; did you mean 'temperature'",
    "--method gone.yaml": "there is no file gone.yaml",
    "--teacher nonsense/x/y": "there is no model at nonsense/x/y",
    "--teacher ./techer": "there is no model at ./techer; did you mean 'teacher'?",
    "--data trian.csv": "there is no file or folder trian.csv",
    "--data sst-2": "did you mean 'sst2'",
    "--data sst2": "the teacher's labels are no, yes, the rows' are negative, positive",
    "--data rows.csv": "the teacher's labels are no, yes, the rows' are bad, good",
    "--data rows.csv --label-column lable": "no column 'lable'",
    "--data rows.csv --validation gone.csv": "there is no file gone.csv",
    "--data rows.csv -o rows.csv": "rows.csv is a file",
    "--corpus gone.txt": "gone.txt does not exist",
    "": "distill has nothing to train on; give --data TASK_OR_FILE",
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}}
    (tmp_path / "teacher" / "config.json").write_text(json.dumps(config))
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"film {i},good\ncard {i},bad\n" for i in range(20)))


@pytest.mark.parametrize("words", WRONG)
def test_wrong_names_files_and_labels_are_found_in_a_moment(words, places, capsys):
    given = {"--teacher": "teacher", "-o": "run"}
    line = [w for flag, value in given.items() if flag not in words.split() for w in (flag, value)]
    assert cli.main(["distill", *line, *words.split(), "--layers", "2"]) == 2
    assert WRONG[words] in capsys.readouterr().err
    assert not Path("run").exists()


def test_the_checks_do_not_import_torch(places):
    lines = ("distill --teacher teacher --layers 2 --data rows.csv -o run", "methods rail-kd", "tasks sst22")
    code = f"""import sys; from demiglace.cli import main
print([main(line.split()) for line in {lines}], 'torch' in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 2, 2] False\n"
    expected = ("the teacher's labels are no, yes", "did you mean 'rail-kd-l'", "did you mean 'sst2'")
    assert all(text in done.stderr for text in expected)


def test_names_of_methods_and_options_are_those_of_the_table():
    from demiglace.methods.registry import METHODS

    found = {name: {o.name for o in options_of(row.options)} for name, row in METHODS.items()}
    assert {name: {*names} for name, names in option_names().items()} == found
    assert [*option_names()] == [*METHODS]


@pytest.mark.parametrize("flag", ["--print_config", "--print-config"])
def test_print_config_runs_nothing(flag, stage, capsys):
    stage(lambda config: pytest.fail("the stage ran"))
    assert cli.main([*TRUNCATE, flag]) == 0
    assert "layers: 3\n" in capsys.readouterr().out


def test_a_reader_that_ends_early_is_no_error():
    command = [sys.executable, "-m", "demiglace", "distill", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        process.stdout.close()  # as `head` does, before anything is written
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
