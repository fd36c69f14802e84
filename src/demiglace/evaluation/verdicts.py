"""Verdicts of a test that found no difference, and of one that too few seeds forbid."""

from typing import Literal

NO_DIFFERENCE: Literal["no significant difference"] = "no significant difference"


UNKNOWN: Literal["too few seeds to tell"] = "too few seeds to tell"
