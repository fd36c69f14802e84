"""The command line: words become a config, the config goes to the command's function, its result is printed.

Results are printed on standard output, everything else on standard error.
"""

# ruff: noqa: T201  (a command line prints)
import importlib
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from demiglace import __version__
from demiglace.config.arguments import parse
from demiglace.config.options import Option, build, options_of, print_yaml
from demiglace.errors import ConfigError, FailedRunsError, UsageError, UserError, unknown
from demiglace.escaping import escape_controls


@dataclass(frozen=True)
class Command:
    """A command: where its function is, the name of its config, a line of help and an example.

    Its module is imported when it runs.
    """

    module: str
    config: str
    summary: str
    example: str


COMMANDS: dict[str, Command] = {
    "compress": Command(
        "demiglace.commands.compress",
        "CompressConfig",
        "compress a model to a size, a latency and a loss of quality",
        "runs/teacher --data train.csv --max-mb 8 --max-latency-ms 0.5 --max-drop 1 -o small",
    ),
    "demo": Command("demiglace.commands.demo", "DemoConfig", "compress a classifier on real data", "-o demo"),
    "finetune": Command(
        "demiglace.commands.finetune",
        "FinetuneConfig",
        "fine-tune a teacher, or a student without a teacher",
        "--model bert-base-uncased --data train.csv -o runs/teacher",
    ),
    "tokenizer": Command(
        "demiglace.commands.tokenizer",
        "TokenizerConfig",
        "train a tokenizer on text",
        "train --corpus texts/ -o runs/tokenizer",
    ),
    "pretrain": Command(
        "demiglace.commands.pretrain",
        "PretrainConfig",
        "pre-train a language model on text",
        "--model gpt2 --corpus texts/ -o runs/lm",
    ),
    "truncate": Command(
        "demiglace.commands.truncate",
        "TruncateConfig",
        "keep some layers, units or tokens of a model",
        "runs/teacher --layers 6 -o runs/start",
    ),
    "distill": Command(
        "demiglace.commands.distill",
        "DistillConfig",
        "distill a teacher into a student, on rows or on text",
        "--teacher runs/teacher --layers 6 --data train.csv -o runs/student",
    ),
    "plan": Command(
        "demiglace.commands.plan",
        "PlanConfig",
        "estimate the cost of a run; `plan compress …` lists the candidates of a compression",
        "--teacher runs/teacher --layers 6 --data train.csv",
    ),
    "evaluate": Command(
        "demiglace.commands.evaluate",
        "EvaluateConfig",
        "evaluate a model on data sets or on text",
        "runs/student --data test.csv --teacher runs/teacher",
    ),
    "generate": Command(
        "demiglace.commands.generate",
        "GenerateConfig",
        "generate text with a language model",
        "runs/lm --prompt 'Once upon a time'",
    ),
    "export": Command(
        "demiglace.commands.export",
        "ExportConfig",
        "export a model for deployment (ONNX, OpenVINO, GGUF, …), check and measure it",
        "runs/student --quantize int8 -o runs/onnx",
    ),
    "clean": Command(
        "demiglace.commands.clean",
        "CleanConfig",
        "clean training text by rules, with a ledger of what was dropped",
        "crawl/ --rules web -o runs/clean",
    ),
    "compare": Command(
        "demiglace.commands.compare",
        "CompareConfig",
        "run a grid of methods × tasks × students × seeds",
        "grid.yaml -o runs/comparison",
    ),
    "report": Command(
        "demiglace.commands.report",
        "ReportConfig",
        "write an HTML page about one or more runs",
        "runs/teacher runs/student -o report.html",
    ),
    "clean-up": Command(
        "demiglace.commands.clean_up",
        "CleanUpConfig",
        "remove caches, checkpoints and last weights of finished runs",
        "runs/ --dry-run",
    ),
    "verify": Command(
        "demiglace.commands.verify",
        "VerifyConfig",
        "compare the files of runs with their recorded digests",
        "runs/",
    ),
    "methods": Command(
        "demiglace.commands.list", "MethodsConfig", "list the distillation methods, with papers", "rail-kd-l"
    ),
    "tasks": Command("demiglace.commands.list", "TasksConfig", "list the named tasks, with papers", "sst2"),
}
OK, OUR_FAULT, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
_SWITCHES = {
    "--print-config": "print the resolved options as YAML and exit",
    "--json": "print the results as JSON",
    "--quiet": "leave out log lines and progress bars on standard error; warnings stay",
}
_MOST_USED = "most used"
_SECTIONS = ("model", "data", "corpus", "method", "cache", "training", "generation", "hardware", "output", "options")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 success, 2 user error, 1 a bug of demiglace, 130 interrupted."""
    args = expand_plan(list(sys.argv[1:] if argv is None else argv))
    try:
        with _terminated_like_interrupted():
            return _run(args)
    except UsageError as error:
        message = escape_controls(f"{error}{_where_else(args[0], error.option)}")
        print(f"error: {message}\n{_usage(args[0])}", file=sys.stderr)
        return USER_ERROR
    except UserError as error:
        print(f"error: {escape_controls(str(error))}", file=sys.stderr)
        return USER_ERROR
    except FailedRunsError as error:
        print(f"error: {escape_controls(str(error))}", file=sys.stderr)
        return OUR_FAULT
    except KeyboardInterrupt:
        print("\ninterrupted; repeat the same command to resume from the last checkpoint.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended; the command has not failed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit would raise again
        return OK


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, so that it ends its child processes and removes temporary files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return OK
    if args[0] == "--version":
        print(__version__)
        return OK
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        raise ConfigError(unknown("command", name, COMMANDS))
    if "-h" in rest or "--help" in rest:
        print(_help(name))
        return OK
    config_class = config_class_of(name)
    switches = {s for s in _SWITCHES if s in (_plain(word) for word in rest)}
    rest = [word for word in rest if _plain(word) not in _SWITCHES]
    if not rest and not switches and _needs_options(name, options_of(config_class)):
        print(_short_help(name), file=sys.stderr)
        return USER_ERROR
    config: Any = build(config_class, parse(rest, options_of(config_class)))
    if "--print-config" in switches:
        print_yaml(config)
        return OK
    _execute(name, config, switches)
    return OK


def expand_plan(args: list[str]) -> list[str]:
    """Return ``compress … --dry-run`` for ``plan compress …``, and other words unchanged."""
    if args[:2] != ["plan", "compress"]:
        return args
    return ["compress", *args[2:], *(["--dry-run"] if args[2:] else [])]


def _plain(word: str) -> str:
    return word.replace("_", "-") if word.startswith("--") else word


def _execute(name: str, config: Any, switches: set[str]) -> None:
    """Check the config without torch, run the command, print its result."""
    if os.environ.get("RANK", "0") == "0":  # one process of a `torchrun` reports for all
        importlib.import_module("demiglace.preflight").check(name, config)
    with ExitStack() as stack:
        if "--quiet" in switches:
            stack.enter_context(importlib.import_module("demiglace.console").quiet())
        result = getattr(importlib.import_module(COMMANDS[name].module), name.replace("-", "_"))(config)
    console = importlib.import_module("demiglace.console")
    if result is not None and console.is_main_process():
        _print(result, as_json="--json" in switches)


def _print(result: Any, *, as_json: bool) -> None:
    if as_json:
        print(_visible(result.to_json()))
    elif hasattr(result, "print"):
        result.print(sys.stdout)
    else:
        print(result)


def _visible(text: str) -> str:
    """Return a result as a terminal can show it; a file or a pipe gets the text as it is."""
    return escape_controls(text) if sys.stdout.isatty() else text


def config_class_of(name: str) -> type:
    """Return the config class of a command."""
    return getattr(importlib.import_module("demiglace.config.command_options"), COMMANDS[name].config)


def _needs_options(name: str, options: Sequence[Option]) -> bool:
    """Return whether a command can do nothing without options."""
    return name == "plan" or any(o.required for o in options)


def _where_else(name: str, option: str) -> str:
    """Return which other commands have an option that this one does not have."""
    plain = option.lstrip("-").replace("-", "_")
    others = [c for c in COMMANDS if c != name and plain in (o.name for o in options_of(config_class_of(c)))]
    return f" It is an option of {', '.join(others)}." if option and others else ""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {row.summary}" for name, row in COMMANDS.items())
    return (
        "usage: demiglace COMMAND [options]\n\n"
        "Compress fine-tuned Transformers: truncate, distill, evaluate and export them.\n\n"
        f"commands:\n{lines}\n\n"
        "`demiglace COMMAND --help` lists a command's options. Every command takes --config FILE.yaml (the same\n"
        "names; flags override it), --print-config, --json and --quiet. Results are printed on standard output,\n"
        "log lines and progress on standard error.\n"
        "Exit codes: 0 success, 2 user error, 1 a bug of demiglace, 130 interrupted."
    )


def _usage(name: str) -> str:
    """Return a line with the command's positional and required options."""
    if name not in COMMANDS:
        return "usage: demiglace COMMAND [options]"
    words = []
    for o in options_of(config_class_of(name)):
        if o.positional:
            words.append(o.name.upper() + ("…" if o.repeated else ""))
        elif o.required:
            words.append(f"{o.flag} {o.name.upper()}")
    return " ".join(["usage: demiglace", name, *words, "[options]"])


def _example(name: str) -> str:
    return f"example: demiglace {name} {COMMANDS[name].example}"


def _short_help(name: str) -> str:
    """Return the usage, an example and the options that most people need."""
    config_class = config_class_of(name)
    common = [o for o in options_of(config_class) if o.common]
    width = max(len(_named(o)) for o in common)
    lines = [f"  {_named(o):<{width}}  {o.help}" for o in common]
    return "\n".join([_usage(name), _example(name), "", *lines, "", f"All options: demiglace {name} --help"])


def _help(name: str) -> str:
    """Return the help of a command: the options that most people need, then the others under their headings."""
    config_class = config_class_of(name)
    options = options_of(config_class)
    lines = [_usage(name), _example(name), "", str(config_class.__doc__)]
    sections = {_MOST_USED: [o for o in options if o.common]}
    sections |= {s: [o for o in options if o.section == s and not o.common] for s in _SECTIONS}
    for title, members in sections.items():
        if members:
            lines += ["", f"{title}:"]
        for o in members:
            default = "required" if o.required else f"default: {_shown(o.default)}"
            lines += [f"  {_named(o)}", _indented(f"{o.help} ({o.expected}; {default})")]
    lines += ["", "all commands:", "  --config FILE", "      YAML file of options; flags override it"]
    for flag, text in _SWITCHES.items():
        lines += [f"  {flag}", f"      {text}"]
    return "\n".join(lines)


def _indented(text: str) -> str:
    margin = " " * 6
    return textwrap.fill(text, 100, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)


def _named(o: Option) -> str:
    short = f"{o.short}, " if o.short else ""
    return short + (o.name.upper() if o.positional else o.flag)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default in (None, "", {}, ()) else str(default)


if __name__ == "__main__":
    sys.exit(main())
