"""The requests with which TensorFlow Serving warms a model up: `assets.extra/tf_serving_warmup_requests`.

A TFRecord of `PredictionLog` messages. Only the few fields that are used are declared here, with the numbers that
they have in TensorFlow Serving's `prediction_log.proto`, `predict.proto` and `model.proto`; its Python package is not
needed. A message inside of another is written like the bytes of its own serialised form, so tensors are declared as
bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for the file, below a version of a model."""

Request = tuple[str, Mapping[str, np.ndarray]]
"""A signature, and its input."""


def write_warm_up(path: Path, model: str, requests: Sequence[Request]) -> None:
    """Writes requests to signatures of a model.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_warm_up(Path(folder) / "requests", "galaxies", [("decode", {"z": np.zeros((1, 2), np.float32)})])
        ...     [(name, inputs["z"].shape) for name, inputs in read_warm_up(Path(folder) / "requests")]
        [('decode', (1, 2))]
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            log = _PredictionLog()
            log.predict_log.request.model_spec.name = model
            log.predict_log.request.model_spec.signature_name = signature
            for name, value in inputs.items():
                log.predict_log.request.inputs[name] = tf.make_tensor_proto(value).SerializeToString()
            writer.write(log.SerializeToString())


def read_warm_up(path: Path) -> Iterator[Request]:
    """The requests to predict of a file; other kinds are passed over, as is what is no such message."""
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        try:
            request = _PredictionLog.FromString(record).predict_log.request
            inputs = {name: _tensor(value) for name, value in request.inputs.items()}
        except (DecodeError, TypeError, ValueError):
            continue
        if inputs:
            yield request.model_spec.signature_name or "serving_default", inputs


def _tensor(serialised: bytes) -> np.ndarray:
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    return tf.make_ndarray(TensorProto.FromString(serialised))


def _message_class() -> type:
    file = descriptor_pb2.FileDescriptorProto(name="tflens/warm_up.proto", package="tflens.warm_up", syntax="proto3")
    message, string, raw = (getattr(_FIELD, f"TYPE_{kind}") for kind in ("MESSAGE", "STRING", "BYTES"))
    _add(file, "ModelSpec", [("name", 1, string, None), ("signature_name", 3, string, None)])
    request = _add(file, "PredictRequest", [("model_spec", 1, message, "ModelSpec")])
    _add(request, "InputsEntry", [("key", 1, string, None), ("value", 2, raw, None)]).options.map_entry = True
    inputs = request.field.add(name="inputs", number=2, type=message, label=_FIELD.LABEL_REPEATED)
    inputs.type_name = ".tflens.warm_up.PredictRequest.InputsEntry"
    _add(file, "PredictLog", [("request", 1, message, "PredictRequest")])
    _add(file, "PredictionLog", [("predict_log", 6, message, "PredictLog")])
    pool = descriptor_pool.DescriptorPool()  # of its own: TensorFlow Serving's package may be there too
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tflens.warm_up.PredictionLog"))


def _add(parent, name: str, fields: Sequence[tuple[str, int, int, str | None]]) -> descriptor_pb2.DescriptorProto:
    """A message in a file or in another message, with its fields: name, number, type, name of the type if a message."""
    message = (parent.message_type if hasattr(parent, "message_type") else parent.nested_type).add(name=name)
    for field, number, kind, of in fields:
        added = message.field.add(name=field, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
        if of:
            added.type_name = f".tflens.warm_up.{of}"
    return message


_FIELD = descriptor_pb2.FieldDescriptorProto
_PredictionLog = _message_class()
