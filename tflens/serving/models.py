"""SavedModels in a folder, loaded to be served."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tflens.errors import SavedModelError
from tflens.serving.tensors_json import Arrays, TensorSpec
from tflens.serving.trust import check_trusted
from tflens.serving.warmup import WARM_UP, read_warm_up

_INIT_OP = "__saved_model_init_op"


@dataclass(frozen=True)
class Served:
    """One signature of a loaded model.

    Attributes:
        inputs, outputs: by name.
        run: inputs to outputs, blocking; raises TensorFlow's errors.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    run: Callable[[Arrays], Arrays]

    @property
    def has_batch_axis(self) -> bool:
        """Whether requests can be joined and split along the first axis of everything that goes in and comes out."""
        return all(spec.shape and spec.shape[0] is None for spec in (*self.inputs.values(), *self.outputs.values()))


@dataclass(frozen=True)
class Model:
    """A version of a model that is ready.

    Attributes:
        name, version: as in its address.
        signatures: by name.
        signature_def: what `/metadata` shows.
    """

    name: str
    version: int
    signatures: Mapping[str, Served]
    signature_def: Mapping[str, Any]


def find_models(folder: str | Path) -> dict[str, dict[int, Path]]:
    """The versions of every model in a folder of `<name>/<version>/saved_model.pb`; or of the one model `folder` is.

    Raises:
        SavedModelError: there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SavedModelError(f"{folder}: the folder of models does not exist. Check the path.")
    itself = _versions(folder)
    if itself:
        return {folder.resolve().name: itself}
    found = {place.name: _versions(place) for place in sorted(folder.iterdir()) if place.is_dir()}
    found = {name: versions for name, versions in found.items() if versions}
    if not found:
        raise SavedModelError(
            f"{folder} holds no SavedModel: there must be NAME/VERSION/saved_model.pb in it, with a number for the "
            "version. `tflens export` writes them so."
        )
    return found


def load_model(name: str, version: int, path: Path, trust: bool = False) -> Model:
    """Loads a SavedModel and warms it up with its own requests.

    Args:
        name, version: as in its address.
        path: of its folder.
        trust: whether to load it even if `check_trusted` refuses it.

    Raises:
        SavedModelError: it is not trusted, cannot be loaded, or has no signature.
    """
    if not trust:
        check_trusted(path)
    try:
        (graph, *_) = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = tf.saved_model.load(str(path))
    except Exception as error:  # whatever a broken file makes of TensorFlow
        raise SavedModelError(f"{path} cannot be loaded as a SavedModel: {_first_line(error)}") from None
    names = [each for each in program.signatures if each != _INIT_OP]
    if not names:
        raise SavedModelError(f"{path} has no signature to serve")
    served = {each: _served(program, program.signatures[each], graph.signature_def[each]) for each in sorted(names)}
    described = json_format.MessageToDict(
        graph, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )["signature_def"]
    model = Model(name, version, served, {each: described[each] for each in sorted(names)})
    _warm_up(model, path / WARM_UP)
    return model


def _versions(folder: Path) -> dict[int, Path]:
    places = (place for place in folder.iterdir() if place.name.isascii() and place.name.isdigit())
    return {int(place.name): place for place in places if (place / "saved_model.pb").is_file()}


def _served(program: Any, function: Callable[..., Any], described: Any) -> Served:
    # By the definition in the file: what TensorFlow tells of a loaded function may be spelled otherwise.
    inputs = {name: _spec(info) for name, info in described.inputs.items()}
    outputs = {name: _spec(info) for name, info in described.outputs.items()}
    types = {name: tf.as_dtype(info.dtype) for name, info in described.inputs.items()}

    def run(given: Arrays) -> Arrays:
        assert program is not None  # its variables live as long as it does
        tensors = {name: tf.constant(value, types[name]) for name, value in given.items()}
        return {name: value.numpy() for name, value in function(**tensors).items()}

    return Served(inputs, outputs, run)


def _spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(None if d.size < 0 else d.size for d in shape.dim)
    dtype = np.dtype(tf.as_dtype(info.dtype).as_numpy_dtype)
    return TensorSpec(dtype, sizes)


def _warm_up(model: Model, path: Path) -> None:
    """The first call of a function is slow; a request that does not fit is the file's fault and harms nobody."""
    if not path.is_file():
        return
    try:
        for signature, inputs in read_warm_up(path):
            if signature in model.signatures:
                model.signatures[signature].run(inputs)
    except (tf.errors.OpError, TypeError, ValueError, KeyError):
        return


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
