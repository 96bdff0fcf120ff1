"""Whether a SavedModel may be loaded: one that `tflens export` wrote, as it wrote it, and that only computes.

A SavedModel is a program: its graph can read and write files, and loading it runs parts of it. Digests tell a folder
that is not, or no longer, what was exported; since whoever makes a SavedModel can write digests too, its operations are
looked through as well, and refused unless they are known to do no more than compute.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.types_pb2 import DT_STRING
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from tflens.errors import SavedModelError
from tflens.parsing import parse_json

DESCRIPTION = "signatures.json"

# Operations with a state of their own that is in memory alone: variables, calls, conditions and loops, complaints.
_STATEFUL = frozenset(
    {
        "Assert", "AssignVariableOp", "If", "PartitionedCall", "Placeholder", "ReadVariableOp",
        "StatefulPartitionedCall", "VarHandleOp", "VarIsInitializedOp", "While",
    }
)  # fmt: skip

# Attributes that are words, but name neither a file nor an address nor code.
_WORDS = frozenset(
    {
        "align", "bad_indices_policy", "config", "config_proto", "container", "data_format", "debug_name", "direction",
        "equation", "executor_type", "message", "method", "mode", "padding", "reduction_type", "shared_name",
    }
)  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder of a SavedModel, by its path in it, but for that of `DESCRIPTION` itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / DESCRIPTION)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_trusted(folder: Path) -> None:
    """Makes sure that loading a SavedModel and calling it does no more than compute. Nothing of it is run.

    Raises:
        SavedModelError: `tflens export` did not write it, a file was changed, added or removed since, or an operation
            in it is not known to be harmless.
    """
    try:
        described = parse_json((folder / DESCRIPTION).read_text())
        written = described["sha256"]
        if not isinstance(written, Mapping):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise _refusal(folder, f"{DESCRIPTION} with the digests that `tflens export` writes is not in it") from None
    found = digests(folder)
    differing = sorted(name for name in {*found, *written} if found.get(name) != written.get(name))
    if differing:
        raise _refusal(folder, f"{', '.join(differing[:3])} is not as `tflens export` wrote it (its SHA-256 differs)")
    harmful = sorted(set(_operations(folder)))
    if harmful:
        raise _refusal(folder, f"it has operations that may do more than compute ({', '.join(harmful[:5])})")


def _refusal(folder: Path, reason: str) -> SavedModelError:
    return SavedModelError(
        f"{folder}: a SavedModel is a program, and this one is not loaded: {reason}. Export the model again with "
        "`tflens export`, or, if you would run a program from where it comes from, allow it with --trust."
    )


def _operations(folder: Path) -> Iterator[str]:
    """Operations that are not known to be harmless, in every function that loading or calling can reach."""
    try:
        model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        (graph,) = model.meta_graphs
    except Exception as error:  # whatever a broken file makes of protobuf
        raise SavedModelError(f"{folder} cannot be loaded as a SavedModel: {error}") from None
    if not graph.HasField("object_graph_def"):
        raise _refusal(folder, "it is of TensorFlow 1")
    parts = {field.name: value for field, value in graph.graph_def.ListFields()}
    held = parts.get("library", FunctionDefLibrary())
    library = {function.signature.name: function for function in held.function}
    gradients = {each.function_name: each.gradient_func for each in held.gradient}
    # TensorFlow 2 reads the variables by their object graph. The functions of its saver, which do touch files, are in
    # the library as well, but neither loaded nor called: only what the object graph names is.
    waiting, seen = list(graph.object_graph_def.concrete_functions), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        waiting += [gradients[name]] if name in gradients else []
        for node in library[name].node_def:
            called = list(_functions(node.attr.values()))
            waiting += called
            if node.op in library:
                waiting.append(node.op)
            elif not _harmless(node.op):
                yield node.op


def _functions(attributes: Iterable[Any]) -> Iterator[str]:
    for value in attributes:
        if value.HasField("func"):
            yield value.func.name
            yield from _functions(value.func.attr.values())
        for function in value.list.func:
            yield function.name
            yield from _functions(function.attr.values())


def _harmless(name: str) -> bool:
    """An operation of TensorFlow's own that has no state and takes no words, by which files and code are named."""
    definition = op_def_registry.get(name)
    if definition is None:
        return False
    if name in _STATEFUL:
        return True
    if definition.is_stateful or any(argument.type == DT_STRING for argument in definition.input_arg):
        return False
    return all(attr.name in _WORDS for attr in definition.attr if attr.type in ("string", "list(string)"))
