"""Values as JSON knows them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """A value, whatever it is made of, in strings, numbers, lists and dicts; what is not finite becomes None.

    Raises:
        TypeError: there is something else in it.

    Example:
        >>> import numpy as np
        >>> plain({"file": Path("a.fits"), "chi2": np.float32("nan"), "rows": np.arange(3)})
        {'file': 'a.fits', 'chi2': None, 'rows': [0, 1, 2]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # of NumPy, which need not be loaded for it
        return plain(value.tolist())
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"plain: {type(value).__name__} is nothing that JSON knows, got {value!r}")
