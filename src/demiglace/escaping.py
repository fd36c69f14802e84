"""Text from users and data in places that interpret it: terminals and spreadsheets."""

from typing import Any

BIDI_CONTROLS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they change the direction of text
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_ESCAPES = {code: f"\\u{code:04x}" for code in (*_CONTROLS, *BIDI_CONTROLS) if chr(code) not in "\n\t"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape_controls(text: str) -> str:
    """Return text in which control characters, escape sequences and changes of direction are visible as ``\\u001b``.

    Line ends and tabs stay. In JSON the result has the same meaning as the text.
    """
    return text.translate(_ESCAPES)


def spreadsheet_cell(value: Any) -> Any:
    """Return the value of a CSV cell: a text that a spreadsheet would run as a formula gets an apostrophe before it.

    Numbers, and texts of numbers, stay.
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text.split(" ")[0])  # lists of numbers are separated by spaces
    except ValueError:
        return False
    return True
