"""Tensors in JSON, as TensorFlow Serving's REST interface writes them: by rows (`instances`) or by columns (`inputs`).

What comes in is not trusted: everything that is no proper request is refused with words that say what is wrong.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import orjson

from tflens.errors import TflensError

Arrays = dict[str, np.ndarray]


class RequestError(TflensError):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of an input or output: None where any length will do, the whole shape None for any rank."""

    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        name = "string" if self.dtype == object else self.dtype.name
        if self.shape is None:
            return f"{name} of any shape"
        return f"{name} [{', '.join('?' if n is None else str(n) for n in self.shape)}]"


@dataclass(frozen=True)
class Request:
    """A body: the signature, its inputs, and whether the answer is wanted by rows."""

    signature: str
    inputs: Arrays
    by_rows: bool


def parse(body: bytes, signatures: Mapping[str, Mapping[str, TensorSpec]]) -> Request:
    """The request of a body.

    Args:
        body: JSON in UTF-8. It must be strict: NaN and Infinity, which TensorFlow Serving takes, are refused.
        signatures: the inputs of each.

    Raises:
        RequestError: the body is no JSON, no request, or its tensors are not what the signature takes.

    Example:
        >>> specs = {"f": {"x": TensorSpec(np.dtype("float32"), (None, 2))}}
        >>> parse(b'{"signature_name": "f", "instances": [[1, 2], [3, 4]]}', specs).inputs["x"].shape
        (2, 2)
        >>> parse(b'{"signature_name": "f", "inputs": {"x": [[1]]}}', specs)
        Traceback (most recent call last):
        ...
        tflens.serving.tensors_json.RequestError: input 'x' must be float32 [?, 2], got the shape [1, 1]
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:  # of what is nested too deep as well
        hint = ". NaN and Infinity are no JSON" if b"NaN" in body or b"Infinity" in body else ""
        raise RequestError(f"JSON Parse error: {error}{hint}") from None
    if not isinstance(content, dict):
        raise RequestError("JSON Parse error: the body must be an object")
    name = content.get("signature_name", "serving_default")
    if not isinstance(name, str) or name not in signatures:
        known = ", ".join(sorted(signatures)) or "none"
        raise RequestError(f"Serving signature name: {_short(name)} not found in signature def; there are: {known}")
    given = [key for key in ("instances", "inputs") if key in content]
    if len(given) != 1:
        raise RequestError("the body must have exactly one of the keys 'instances' (rows) and 'inputs' (columns)")
    specs = signatures[name]
    columns = _columns(content["inputs"], specs) if given == ["inputs"] else _of_rows(content["instances"], specs)
    missing, unknown = sorted(set(specs) - set(columns)), sorted(set(columns) - set(specs))
    if missing or unknown:
        raise RequestError(
            f"signature {name} takes the inputs {sorted(specs)}; missing: {missing}, unknown: {_short(unknown)}"
        )
    inputs = {key: _array(key, columns[key], spec) for key, spec in specs.items()}
    if given == ["instances"]:
        _check_rows(inputs)
    return Request(name, inputs, given == ["instances"])


def answer(outputs: Arrays, by_rows: bool) -> bytes:
    """The body of an answer: `predictions`, or `outputs`; where there is a single output, without its name.

    Numbers that are not finite are written as TensorFlow Serving does, `NaN` and `Infinity`: then the body is no strict
    JSON, but Python and most clients read it.

    Raises:
        RequestError: rows are wanted, but the outputs have none, or not the same number.

    Example:
        >>> answer({"y": np.ones((2, 1), np.float32)}, by_rows=True)
        b'{"predictions":[[1.0],[1.0]]}'
        >>> answer({"y": np.ones(2), "z": np.array([1, 2])}, by_rows=True)
        b'{"predictions":[{"y":1.0,"z":1},{"y":1.0,"z":2}]}'
        >>> answer({"y": np.array(0.1, np.float32)}, by_rows=False), answer({"y": np.array(np.nan)}, by_rows=False)
        (b'{"outputs":0.1}', b'{"outputs": NaN}')
    """
    if by_rows:
        rows = {value.shape[0] if value.ndim else None for value in outputs.values()}
        if len(rows) != 1 or None in rows:
            raise RequestError("the outputs of this signature have no common batch axis: ask by columns ('inputs')")
    plain = {name: _encodable(name, value) for name, value in outputs.items()}
    if not by_rows:
        content = {"outputs": next(iter(plain.values())) if len(plain) == 1 else plain}
    elif len(plain) == 1:
        content = {"predictions": next(iter(plain.values()))}
    else:
        content = {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}
    finite = all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f")
    if finite:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)
    return json.dumps(content, default=_plain).encode()


def _columns(content: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if isinstance(content, dict) and not _is_bytes(content):
        return content
    if len(specs) != 1:
        raise RequestError(f"'inputs' must be an object with the inputs {sorted(specs)}")
    return {next(iter(specs)): content}


def _of_rows(content: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not isinstance(content, list) or not content:
        raise RequestError("'instances' must be a list of at least one row")
    named = [isinstance(row, dict) and not _is_bytes(row) for row in content]
    if not any(named):
        if len(specs) != 1:
            raise RequestError(f"every row of 'instances' must be an object with the inputs {sorted(specs)}")
        return {next(iter(specs)): content}
    if not all(named):
        raise RequestError("the rows of 'instances' must all be objects, or all be values")
    names = set(content[0])
    if any(set(row) != names for row in content):
        raise RequestError("the rows of 'instances' must all have the same inputs")
    return {name: [row[name] for row in content] for name in content[0]}


def _array(name: str, value: Any, spec: TensorSpec) -> np.ndarray:
    if spec.dtype == object:
        array = _strings(name, value)
    else:
        try:
            found = np.asarray(value)
        except (ValueError, OverflowError, TypeError):  # ragged, deeper than arrays go
            _refuse(name, spec, "rows of unequal length or depth")
        if found.size == 0:
            _refuse(name, spec, f"the empty shape {list(found.shape)}")
        if found.dtype.kind not in _KINDS.get(spec.dtype.kind, "iuf"):
            _refuse(name, spec, f"values of another type ({_WORDS.get(found.dtype.kind, 'mixed')})")
        array = _converted(name, found, spec)
    fits = spec.shape is None or (
        len(spec.shape) == array.ndim and all(n is None or n == m for n, m in zip(spec.shape, array.shape, strict=True))
    )
    if not fits:
        _refuse(name, spec, f"the shape {list(array.shape)}")
    return array


def _converted(name: str, found: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if spec.dtype.kind in "iu":
        limits = np.iinfo(spec.dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            _refuse(name, spec, "a number that is too large for it")
    with np.errstate(over="ignore"):
        array = found.astype(spec.dtype)
    if spec.dtype.kind == "f" and not np.isfinite(array).all():
        _refuse(name, spec, "a number that is too large for it")
    return array


def _strings(name: str, value: Any) -> np.ndarray:
    shape: list[int] = []
    first = value
    while isinstance(first, list) and first:
        shape.append(len(first))
        first = first[0]
    if len(shape) > 32:
        raise RequestError(f"input {name!r} has too many axes")
    found: list[bytes] = []

    def walk(value: Any, depth: int) -> None:
        if depth < len(shape):
            if not isinstance(value, list) or len(value) != shape[depth]:
                raise RequestError(f"input {name!r} must be strings in rows of equal length and depth")
            for each in value:
                walk(each, depth + 1)
        else:
            found.append(_bytes(name, value))

    walk(value, 0)
    array = np.empty(len(found), object)
    array[:] = found
    return array.reshape(shape)


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if _is_bytes(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError, TypeError):
            pass
    raise RequestError(f'input {name!r} must be strings, or bytes as {{"b64": "..."}} in base64')


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _check_rows(inputs: Arrays) -> None:
    # Rows are stacked: a signature without a batch axis gets one too many, which the shapes have told already.
    if len({value.shape[:1] for value in inputs.values()}) > 1:
        raise RequestError("the inputs have unequal numbers of rows")


def _encodable(name: str, value: np.ndarray) -> Any:
    """What orjson writes: arrays of numbers as they are, strings as text, or in base64 if the name says `_bytes`."""
    if value.dtype.kind in "OSU":
        return _text(value.tolist(), as_bytes=name.endswith("_bytes"))
    if value.dtype not in _NATIVE:
        if value.dtype.kind not in "fV":  # bfloat16 is of the kind V
            raise RequestError(f"output {name!r} is {value.dtype.name}, which JSON has not", 500)
        value = value.astype(np.float32)
    # `ascontiguousarray` would make a list of a single number.
    return np.ascontiguousarray(value) if value.ndim else value[()]


def _text(value: Any, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_text(each, as_bytes) for each in value]
    if not as_bytes:
        try:
            return value.decode() if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()}


def _plain(value: Any) -> Any:
    """For what the encoder does not know: arrays without axes, and all arrays to the standard library's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value))


def _refuse(name: str, spec: TensorSpec, found: str) -> NoReturn:
    raise RequestError(f"input {name!r} must be {spec}, got {found}")


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = "something nested deep"
    return text if len(text) <= 80 else f"{text[:77]}..."


_KINDS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}
_WORDS = {"f": "numbers with a fraction", "i": "whole numbers", "u": "whole numbers", "b": "booleans", "U": "strings"}
_NATIVE = {np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")}
_NATIVE |= {np.dtype(name) for name in ("uint64", "float32", "float64")}
