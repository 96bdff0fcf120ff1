"""Docstrings as the site's parser knows them: it takes `Examples:` for code, and `Example:`, as we write, for prose."""

import re
from typing import Any

import griffe


class SingularExample(griffe.Extension):
    """Reads a section `Example:` as one of `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_others: Any) -> None:
        """Called for every object of the package."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
