"""Rules and rule sets by name, and rule sets from YAML files. A file of rules:

rules:
- repair
- {rule: language, languages: [en, de], min_probability: 0.5}
- {rule: gopher-quality, min_words: 20}
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from demiglace.cleaning.rules.base import Rule
from demiglace.cleaning.rules.c4 import C4
from demiglace.cleaning.rules.decontamination import Decontamination
from demiglace.cleaning.rules.dedup import Boilerplate, CollectionRule, ExactDuplicates
from demiglace.cleaning.rules.fineweb_quality import FineWebQuality
from demiglace.cleaning.rules.gopher_quality import GopherQuality
from demiglace.cleaning.rules.gopher_repetition import GopherRepetition
from demiglace.cleaning.rules.language import Language
from demiglace.cleaning.rules.minhash_dedup import NearDuplicates
from demiglace.cleaning.rules.pii import Mask
from demiglace.cleaning.rules.repair import Repair
from demiglace.cleaning.rules.short_study import HtmlLines, UniqueLines
from demiglace.config.options import build, read_yaml
from demiglace.errors import ConfigError, unknown

AnyRule = Rule | CollectionRule | Decontamination

# In the order of the rule sets: cheap rules that drop much come first, and lines are removed before documents are
# compared.
RULES: dict[str, type[AnyRule]] = {
    kind.name: kind
    for kind in (
        Repair,
        Language,
        UniqueLines,
        HtmlLines,
        Boilerplate,
        GopherQuality,
        GopherRepetition,
        FineWebQuality,
        C4,
        ExactDuplicates,
        NearDuplicates,
        Decontamination,
        Mask,
    )
}
SETS: dict[str, tuple[str, ...]] = {
    "paper": ("unique-lines", "html-lines"),
    "web": tuple(name for name in RULES if name not in ("unique-lines", "html-lines", "decontamination")),
}


def load_rules(given: str, against: Sequence[str] = ()) -> tuple[AnyRule, ...]:
    """Return the rules of a named set or a YAML file.

    Args:
        given: name of a rule set, or path of a YAML file.
        against: adds decontamination against these tasks and files, before a final masking rule.

    Raises:
        ConfigError: a name or value does not exist; the message gives the nearest one.
    """
    if given.endswith((".yaml", ".yml")):
        rules = _read(given)
    elif given in SETS:
        rules = tuple(RULES[name]() for name in SETS[given])
    else:
        raise ConfigError(unknown("rule set", given, SETS) + ", or give a file of rules that ends in .yaml.")
    for rule in rules:
        if isinstance(rule, Rule):
            rule.check()
    if not against:
        return rules
    if any(rule.name == Decontamination.name for rule in rules):
        raise ConfigError(f"--decontaminate-against was given and {given} has a decontamination rule; use one of them.")
    masks = sum(rule.name == Mask.name for rule in rules[-1:])
    cut = len(rules) - masks
    return (*rules[:cut], Decontamination(tuple(against)), *rules[cut:])


def to_config(rules: Sequence[AnyRule]) -> list[dict[str, Any]]:
    """Return rules with all their thresholds, in the form of `rules` in a YAML file."""
    return [{"rule": rule.name, **asdict(rule)} for rule in rules]  # type: ignore[arg-type]


def from_config(rows: Sequence[Any]) -> tuple[AnyRule, ...]:
    """Build rules from such rows. Raises `ConfigError` for unknown rules and options."""
    return tuple(_rule(row) for row in rows)


def _read(file: str) -> tuple[AnyRule, ...]:
    content = read_yaml(file)
    try:
        rows = content.get("rules")
        if set(content) != {"rules"} or not isinstance(rows, list) or not rows:
            raise ConfigError(
                f"expected one key, rules, with a list of rules; given {', '.join(content) or 'nothing'}."
            )
        rules = from_config(rows)
        names = [rule.name for rule in rules]
        for name in names:
            # tallies and files are named by the rule
            if names.count(name) > 1:
                raise ConfigError(
                    f"the rule {name} was given {names.count(name)} times; expected each rule at most once."
                )
        return rules
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _rule(row: Any) -> AnyRule:
    options = {"rule": row} if isinstance(row, str) else row
    if not isinstance(options, dict) or not isinstance(options.get("rule"), str):
        raise ConfigError(f"expected a rule's name, or a mapping with the key rule; given {row!r}.")
    name = options["rule"]
    if name not in RULES:
        raise ConfigError(unknown("rule", name, RULES))
    try:
        return build(RULES[name], {k: v for k, v in options.items() if k != "rule"})
    except ConfigError as error:
        raise ConfigError(f"rule {name}: {error}") from error
