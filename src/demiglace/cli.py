"""The commands. Thin: flags become a config, the config goes to the stage of the same name."""

# ruff: noqa: T201  (help, configs and errors are what the commands print)
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from demiglace import __version__
from demiglace.config.arguments import parse
from demiglace.config.options import build, options_of, print_yaml
from demiglace.errors import ConfigError, FailedRunsError, UserError, unknown

# command -> (module, name of its config, one line of help); modules are imported only when they run
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demiglace.commands.demo", "DemoConfig", "the whole way on real data, in minutes"),
    "finetune": ("demiglace.commands.finetune", "FinetuneConfig", "train a teacher, or a student with no teacher"),
    "tokenizer": ("demiglace.commands.tokenizer", "TokenizerConfig", "train a tokenizer on text"),
    "pretrain": ("demiglace.commands.pretrain", "PretrainConfig", "train a language model on text"),
    "truncate": ("demiglace.commands.truncate", "TruncateConfig", "keep some of a model's layers"),
    "distill": (
        "demiglace.commands.distill",
        "DistillConfig",
        "train a student on a teacher's signals, on rows or on text",
    ),
    "plan": ("demiglace.commands.plan", "PlanConfig", "what such a run will cost, before it is run"),
    "evaluate": ("demiglace.commands.evaluate", "EvaluateConfig", "measure a model on sets of rows, or on text"),
    "generate": ("demiglace.commands.generate", "GenerateConfig", "let a language model go on with a text"),
    "export": ("demiglace.commands.export", "ExportConfig", "write ONNX, check and measure it"),
    "clean": (
        "demiglace.commands.clean",
        "CleanConfig",
        "clean training text by rules, with a ledger of what was dropped",
    ),
    "compare": ("demiglace.commands.compare", "CompareConfig", "methods × tasks × students × seeds, each run once"),
    "report": ("demiglace.commands.report", "ReportConfig", "one HTML page about one or more runs"),
    "methods": ("demiglace.commands.list", "MethodsConfig", "list the distillation methods, with papers"),
    "tasks": ("demiglace.commands.list", "TasksConfig", "list the named tasks, with papers"),
}
OK, OUR_FAULT, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 success, 2 user error, 1 our fault, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except FailedRunsError as error:
        print(f"error: {error}", file=sys.stderr)
        return OUR_FAULT
    except KeyboardInterrupt:
        print("\ninterrupted; repeat the same command to go on from the last checkpoint.", file=sys.stderr)
        return INTERRUPTED


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
    config_class = config_class_of(name)
    if "-h" in rest or "--help" in rest:
        print(_help(name, config_class))
        return OK
    show = "--print_config" in rest or "--print-config" in rest
    rest = [a for a in rest if a not in ("--print_config", "--print-config")]
    config: Any = build(config_class, parse(rest, options_of(config_class)))
    if show:
        print_yaml(config)
        return OK
    module = importlib.import_module(COMMANDS[name][0])
    getattr(module, name)(config)
    return OK


def config_class_of(name: str) -> type:
    """The config class of a command."""
    return getattr(importlib.import_module("demiglace.config.commands"), COMMANDS[name][1])


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {row[2]}" for name, row in COMMANDS.items())
    return (
        "usage: demiglace COMMAND [options]\n\n"
        "Reduce a pre-trained language model to a smaller one that keeps its quality.\n\n"
        f"commands:\n{lines}\n\n"
        "`demiglace COMMAND --help` lists a command's options. Every command takes --config FILE.yaml (the same\n"
        "names; flags override it) and --print_config.\n"
        "Exit codes: 0 success, 2 user error, 1 our fault, 130 interrupted."
    )


def _help(name: str, config_class: type) -> str:
    options = options_of(config_class)
    places = " ".join(o.name.upper() + ("…" if o.repeated else "") for o in options if o.positional)
    lines = [f"usage: demiglace {name} {places} [options]".replace("  ", " "), "", str(config_class.__doc__), ""]
    for o in options:
        short = f"{o.short}, " if o.short else ""
        default = "required" if o.required else f"default: {_shown(o.default)}"
        lines.append(f"  {short}{o.name.upper() if o.positional else o.flag}")
        lines.append(f"      {o.help} ({o.expected}; {default})")
    lines += ["  --config FILE", "      YAML file of options; flags override it"]
    lines += ["  --print_config", "      print the resolved options as YAML and exit"]
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default in (None, "", {}, ()) else str(default)


if __name__ == "__main__":
    sys.exit(main())
