"""Distil from text alone: a method without its terms on labels."""

from dataclasses import replace

from demiglace.console import say
from demiglace.errors import ConfigError
from demiglace.methods.base import Method


def without_labels(name: str, method: Method) -> Method:
    """Return the method without its terms on labels, and print which are left out.

    name: of the method. Raises `ConfigError` for a method that trains on labels alone, in all of its phases or in one.
    """
    kept = tuple(w for w in method.terms if not w.term.needs_labels)
    for phase in range(len(method.phases)):
        if not any(w.weight for w in kept if w.phase in (None, phase)):
            what = f"phase {phase + 1} of method {name}" if len(method.phases) > 1 else f"method {name}"
            raise ConfigError(
                f"{what} trains on labels alone, and the rows have none. Take a method with a teacher in every phase, "
                "such as vanilla-kd or rail-balanced, or give rows with labels (--label-column names their column)."
            )
    left_out = [f"{w.term.name} (weight {w.weight:.3g})" for w in method.terms if w.term.needs_labels]
    if left_out:
        say(f"without labels, method {name} trains without its loss on labels: {', '.join(left_out)}.")
    return replace(method, terms=kept)
