"""The cleaning rules of Li et al. 2021 with BeautifulSoup, written from their description alone."""

import hashlib
import re
import warnings
from collections.abc import Iterable

import pytest


def rejects(line: str) -> bool:
    """Return whether BeautifulSoup finds a tag in a line or raises."""
    bs4 = pytest.importorskip("bs4", reason="beautifulsoup4 is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a line may look like a file name or an address
        try:
            return bs4.BeautifulSoup(line.rstrip(), "html.parser").find() is not None
        except Exception:
            return True


def kept(lines: Iterable[str]) -> list[bool]:
    """Return which lines the rules keep."""
    seen: set[tuple[int, str]] = set()
    result = []
    for line in lines:
        plain = re.sub(r"[^\w\s]", "", line.rstrip())
        words = plain.split()
        ends = "".join(words[:4]) + "".join(words[-4:])
        key = (len(plain), hashlib.md5(ends.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest())
        result.append(key not in seen and not rejects(line))
        seen.add(key)
    return result
