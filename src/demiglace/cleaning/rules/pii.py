"""Masking of personal data: e-mail addresses and public IP addresses, as FineWeb does (arXiv 2406.17557).

Unlike in FineWeb, four numbers within a longer chain of numbers, such as 1.8.8.8.8, are not an address.
"""

import ipaddress
import re
import string
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.options import option

EMAIL, IP = "email@example.com", "22.214.171.124"
_LOCAL = (
    string.ascii_letters + string.digits + "!#$%&'*+/=?^_`{|}~-"
)  # of the part before @, which may also contain single dots
_LOCAL_START = re.compile(rf"\b[{re.escape(_LOCAL)}]")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_IP = re.compile(rf"(?<![\d.])(?:{_BYTE}\.){{3}}{_BYTE}(?!\.?\d)")

_MAY_BE_IP = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d")  # begins with a dot, which is rarer than digits, for speed


@dataclass(frozen=True)
class Mask(Rule):
    """Replace e-mail addresses and public IP addresses."""

    name: ClassVar[str] = "mask"

    email: str = option("replacement of an e-mail address", EMAIL)
    ip: str = option("replacement of an IP address", IP)

    def apply(self, texts: Texts) -> RuleResult:
        """Replace the addresses and count them; drop no text."""
        masked = [mask(text, self.email, self.ip) for text in texts.texts]
        counts = np.array([pair for _, *pair in masked], float).reshape(-1, 2)
        measurements = (Measurement("e-mail addresses", counts[:, 0]), Measurement("IP addresses", counts[:, 1]))
        kept = [old if new == old else new for (new, *_), old in zip(masked, texts.texts, strict=True)]
        return RuleResult(kept, measurements)


def mask(text: str, email: str = EMAIL, ip: str = IP) -> tuple[str, int, int]:
    """Return the text with e-mail addresses and public IPv4 addresses replaced, and the number of each."""
    emails = public = 0
    if "@" in text:
        text, emails = _mask_emails(text, email)

    def replace(match: re.Match[str]) -> str:
        nonlocal public
        if not _is_public(match.group()):
            return match.group()
        public += 1
        return ip

    return (_IP.sub(replace, text) if _MAY_BE_IP.search(text) else text), emails, public


def _mask_emails(text: str, email: str) -> tuple[str, int]:
    """Search from each @ outwards, so that every character is read at most a few times."""
    pieces, count, last, end, at = [], 0, 0, 0, text.find("@")
    while at >= 0:
        start, domain = _local_start(text, end, at), _DOMAIN.match(text, at + 1)
        end = at + 1
        if start is not None and domain:
            pieces += [text[last:start], email]
            last = end = domain.end()
            count += 1
        at = text.find("@", end)
    return "".join([*pieces, text[last:]]), count


def _local_start(text: str, low: int, at: int) -> int | None:
    """Return where the address that ends at an @ begins, at a word boundary not before `low`; None if nowhere."""
    before = text[low:at]
    run = before[len(before.rstrip(_LOCAL + ".")) :].rpartition("..")[2].removeprefix(".")
    match = None if run.endswith(".") else _LOCAL_START.search(text, at - len(run), at)
    return match.start() if match else None


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:  # a leading zero
        return False
