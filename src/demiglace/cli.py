"""The commands. Thin: flags become a config, the config goes to the stage of the same name."""

import importlib
import sys
import types
from collections.abc import Sequence
from typing import Any, get_args

from demiglace import __version__
from demiglace.config import Option, build, options_of, print_yaml, read_yaml
from demiglace.errors import ConfigError, UserError, unknown

# command -> (module of its stage, name of its config, one line of help); stages are imported only when they run
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demiglace.stages.demo", "DemoConfig", "the whole way on real data, in minutes"),
    "finetune": ("demiglace.stages.finetune", "FinetuneConfig", "train a teacher, or a student with no teacher"),
    "truncate": ("demiglace.stages.truncate", "TruncateConfig", "keep some of a model's layers"),
    "distill": ("demiglace.stages.distill", "DistillConfig", "train a student on a teacher's signals"),
    "evaluate": ("demiglace.stages.evaluate", "EvaluateConfig", "measure a model on sets of rows"),
    "export": ("demiglace.stages.export", "ExportConfig", "write ONNX, check and measure it"),
    "report": ("demiglace.stages.report", "ReportConfig", "one HTML page about one or more runs"),
    "methods": ("demiglace.stages.listing", "MethodsConfig", "list the distillation methods, with papers"),
    "tasks": ("demiglace.stages.listing", "TasksConfig", "list the named tasks, with papers"),
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
    config = build(config_class, parse(rest, options_of(config_class)))
    if show:
        print_yaml(config)
        return OK
    module = importlib.import_module(COMMANDS[name][0])
    getattr(module, name)(config)
    return OK


def config_class_of(name: str) -> type:
    """The config class of a command."""
    return getattr(importlib.import_module("demiglace.stages.config"), COMMANDS[name][1])


def parse(args: Sequence[str], options: Sequence[Option]) -> dict[str, Any]:
    """Option values from command-line words; a `--config` file lies under the flags. Raises `ConfigError`."""
    flags = {o.flag: o for o in options} | {o.short: o for o in options if o.short}
    positional = [o for o in options if o.positional]
    values: dict[str, Any] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        if not _is_flag(word):
            _place(word, positional, values)
            continue
        flag, _, inline = word.partition("=")
        flag, _, key = _dashed(flag).partition(".")
        if flag == "--config":
            values = read_checked(inline or _next(words, flag), options) | values
            continue
        if flag not in flags:
            raise ConfigError(unknown("option", flag, [*flags, "--config", "--print_config"]))
        o = flags[flag]
        _set(values, o, key, _value(o, inline, "=" in word, words))
    return values


def read_checked(file: str, options: Sequence[Option]) -> dict[str, Any]:
    """A YAML config file whose keys are all options of the command."""
    content = read_yaml(file)
    names = [o.name for o in options]
    for name in content:
        if name not in names:
            raise ConfigError(unknown(f"key in {file}:", name, names))
    return content


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and not word[1:2].isdigit()


def _dashed(flag: str) -> str:
    name, dot, key = flag.partition(".")
    return name.replace("_", "-") + dot + key.replace("-", "_")


def _next(words: list[str], flag: str) -> str:
    if not words:
        raise ConfigError(f"{flag} needs a value.")
    return words.pop(0)


def _place(word: str, positional: Sequence[Option], values: dict[str, Any]) -> None:
    for o in positional:
        if o.repeated:
            values.setdefault(o.name, []).append(word)
            return
        if o.name not in values:
            values[o.name] = word
            return
    raise ConfigError(f"{word!r} was given, but there is no place for it; options start with --.")


def _value(o: Option, inline: str, has_inline: bool, words: list[str]) -> Any:
    if o.type is bool and not has_inline and not (words and words[0].lower() in ("true", "false")):
        return True
    first = inline if has_inline else _next(words, o.flag)
    if not o.repeated:
        return _scalar(first, o)
    items = first.strip("[]").split(",")
    while words and not has_inline and not _is_flag(words[0]):
        items += words.pop(0).split(",")
    return [item.strip() for item in items if item.strip()]


def _scalar(text: str, o: Option) -> Any:
    """Texts stay texts where the option wants one, so that a file called `3` is no number."""
    if text.lower() in ("none", "null") and type(None) in get_args(o.type):
        return None
    if o.type is dict or isinstance(o.type, types.GenericAlias):
        import yaml

        return yaml.safe_load(text)
    return text


def _set(values: dict[str, Any], o: Option, key: str, value: Any) -> None:
    if key:
        values[o.name] = dict(values.get(o.name) or {}) | {key: value}
    else:
        values[o.name] = value


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {row[2]}" for name, row in COMMANDS.items())
    return (
        "usage: demiglace COMMAND [options]\n\n"
        "Reduce a pre-trained language model to a smaller one that keeps its quality.\n\n"
        f"commands:\n{lines}\n\n"
        "`demiglace COMMAND --help` lists a command's options. Every command takes --config FILE.yaml (the same names;\n"
        "flags override it) and --print_config. Exit codes: 0 success, 2 user error, 1 our fault, 130 interrupted."
    )


def _help(name: str, config_class: type) -> str:
    from demiglace.config import describe_type

    options = options_of(config_class)
    places = " ".join(o.name.upper() + ("…" if o.repeated else "") for o in options if o.positional)
    lines = [f"usage: demiglace {name} {places} [options]".replace("  ", " "), "", str(config_class.__doc__), ""]
    for o in options:
        short = f"{o.short}, " if o.short else ""
        default = "required" if o.required else f"default: {_shown(o.default)}"
        lines.append(f"  {short}{o.name.upper() if o.positional else o.flag}")
        lines.append(f"      {o.help} ({describe_type(o.type)}; {default})")
    lines += ["  --config FILE", "      YAML file of options; flags override it"]
    lines += ["  --print_config", "      print the resolved options as YAML and exit"]
    return "\n".join(lines)


def _shown(default: Any) -> str:
    return "none" if default is None or default == {} else str(default)


if __name__ == "__main__":
    sys.exit(main())
