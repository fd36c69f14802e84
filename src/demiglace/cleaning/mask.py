"""Masking what points to a person: e-mail addresses and public IP addresses, as FineWeb does (arXiv 2406.17557).

Unlike there, four numbers inside a longer chain of numbers, such as 1.8.8.8.8, are no address.
"""

import ipaddress
import re

EMAIL, IP = "email@example.com", "22.214.171.124"
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_EMAIL = re.compile(rf"\b{_LOCAL}(?:\.{_LOCAL})*@(?:{_LABEL}\.)+{_LABEL}")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_IP = re.compile(rf"(?<![\d.])(?:{_BYTE}\.){{3}}{_BYTE}(?!\.?\d)")


def mask(text: str, email: str = EMAIL, ip: str = IP) -> tuple[str, int, int]:
    """The text with every e-mail address and every public IPv4 address replaced; and how many of each there were."""
    emails = 0
    if "@" in text:
        text, emails = _EMAIL.subn(email, text)
    public = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal public
        if not _is_public(found.group()):
            return found.group()
        public += 1
        return ip

    return _IP.sub(replaced, text), emails, public


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:  # a leading zero
        return False
