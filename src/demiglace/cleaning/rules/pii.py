"""Masking what points to a person: e-mail addresses and public IP addresses, as FineWeb does (arXiv 2406.17557).

Unlike there, four numbers inside a longer chain of numbers, such as 1.8.8.8.8, are no address.
"""

import ipaddress
import re
import string
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measure, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.options import option

EMAIL, IP = "email@example.com", "22.214.171.124"
_LOCAL = string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-"  # runs of these, with single dots between
_LOCAL_START = re.compile(rf"\b[{re.escape(_LOCAL)}]")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_IP = re.compile(rf"(?<![\d.])(?:{_BYTE}\.){{3}}{_BYTE}(?!\.?\d)")

_MAY_BE_IP = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d")  # begins with a character that is rarer than digits are


@dataclass(frozen=True)
class Mask(Rule):
    """E-mail addresses and public IP addresses are replaced."""

    name: ClassVar[str] = "mask"

    email: str = option("what stands for an e-mail address", EMAIL)
    ip: str = option("what stands for an IP address", IP)

    def apply(self, texts: Texts) -> RuleResult:
        """No text is dropped; what was replaced is counted."""
        masked = [mask(text, self.email, self.ip) for text in texts.texts]
        found = np.array([counts for _, *counts in masked], float).reshape(-1, 2)
        measures = (Measure("e-mail addresses", found[:, 0]), Measure("IP addresses", found[:, 1]))
        kept = [old if new == old else new for (new, *_), old in zip(masked, texts.texts, strict=True)]
        return RuleResult(kept, measures)


def mask(text: str, email: str = EMAIL, ip: str = IP) -> tuple[str, int, int]:
    """The text with every e-mail address and every public IPv4 address replaced; and how many of each there were."""
    emails = public = 0
    if "@" in text:
        text, emails = _mask_emails(text, email)

    def replaced(found: re.Match[str]) -> str:
        nonlocal public
        if not _is_public(found.group()):
            return found.group()
        public += 1
        return ip

    return (_IP.sub(replaced, text) if _MAY_BE_IP.search(text) else text), emails, public


def _mask_emails(text: str, email: str) -> tuple[str, int]:
    """From each @ outwards, so that every character is looked at a few times at most."""
    pieces, count, last, behind, at = [], 0, 0, 0, text.find("@")
    while at >= 0:
        start, domain = _local_start(text, behind, at), _DOMAIN.match(text, at + 1)
        behind = at + 1
        if start is not None and domain:
            pieces += [text[last:start], email]
            last = behind = domain.end()
            count += 1
        at = text.find("@", behind)
    return "".join([*pieces, text[last:]]), count


def _local_start(text: str, low: int, at: int) -> int | None:
    """Where the address before an @ begins, from `low` on: at the border of a word."""
    before = text[low:at]
    run = before[len(before.rstrip(_LOCAL + ".")) :].rpartition("..")[2].removeprefix(".")
    found = None if run.endswith(".") else _LOCAL_START.search(text, at - len(run), at)
    return found.start() if found else None


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:  # a leading zero
        return False
