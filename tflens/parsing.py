"""JSON and TOML from others: whatever is wrong with a text is one kind of error."""

import json
import tomllib
from collections.abc import Callable
from typing import Any


def parse_json(text: str) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: it is no JSON, or is nested more deeply than Python can follow.

    Example:
        >>> parse_json('{"a": [1, null]}')
        {'a': [1, None]}
    """
    return _parsed(json.loads, text)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: as `parse_json`.
    """
    return _parsed(tomllib.loads, text)


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
