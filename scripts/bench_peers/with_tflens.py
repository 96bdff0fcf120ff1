"""This package: what a fit computes. With a Sersic source that is the gradient of `LensModel`'s log posterior in u.

Priors, bijectors, mask and the marginalisation of the amplitude are part of it, which the other packages are spared.
"""

from collections.abc import Callable

import numpy as np
from worker import Job, Settings
from workloads import PIXEL_SCALE, PIXELS, Workload

from tflens.quiet import import_tensorflow_quietly  # isort: split

import_tensorflow_quietly()

# ruff: noqa: E402
import tensorflow as tf

from tflens.chunks import chunk_size, in_chunks, in_streams
from tflens.direct import Direct
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Pixelated, Sersic
from tflens.mass import EPL, SIE, Shear
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation

_LIGHT_NAMES = {"e1": "source_e1", "e2": "source_e2", "center_x": "source_x", "center_y": "source_y"}


def settings(workload: Workload, task: str, batch: int) -> Settings:
    if task == "image":
        return {"LensLayer": lambda: image_job(workload, batch)}
    if workload.source == "Sersic":
        return {"value_and_gradient": lambda: log_prob_job(workload, batch)}
    return {"LensLayer": lambda: likelihood_job(workload, batch)}


def image_job(workload: Workload, batch: int, dtype: str = "float32") -> Job:
    """Model images from physical parameters."""
    model = _model(workload, dtype)
    outputs = [tf.TensorSpec([PIXELS, PIXELS], dtype)]
    function = _side_by_side(lambda inputs: [model(*inputs)], outputs, workload, batch)
    inputs = _inputs(workload, batch, dtype)
    return Job(lambda: function(*inputs)[0].numpy())


def likelihood_job(workload: Workload, batch: int, dtype: str = "float32") -> Job:
    """The plain likelihood's gradient with respect to physical parameters and pixels."""
    model = _model(workload, dtype)
    data, noise = tf.constant(workload.data, dtype), tf.constant(workload.noise, dtype)

    def value_and_gradient(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = -0.5 * tf.reduce_sum(((model(*inputs) - data) / noise) ** 2, (1, 2))
        return [value, *tape.gradient(value, inputs)]

    inputs = _inputs(workload, batch, dtype)
    outputs = [tf.TensorSpec([], dtype), *(tf.TensorSpec(value.shape[1:], dtype) for value in inputs)]
    function = _side_by_side(value_and_gradient, outputs, workload, batch)
    return Job(
        lambda: _wait(function(*inputs)),
        lambda result: np.concatenate([np.reshape(part, (batch, -1)) for part in result[1:]], 1),
    )


def log_prob_job(workload: Workload, batch: int, dtype: str = "float32") -> Job:
    """The log posterior and its gradient in u `[batch, dim]`."""
    lens = EPL() if workload.lens == "EPL" else SIE()
    mask = np.ones(workload.data.shape, bool)
    mask[:5, :5] = False
    observation = Observation(workload.data, workload.noise, workload.kernel, pixel_scale=PIXEL_SCALE, mask=mask)
    model = LensModel(lens=[lens, Shear()], lens_light=[], source=Sersic(), sky=False, dtype=dtype)
    target = LensTarget(model, observation, supersampling=workload.supersampling)
    u = tf.constant(np.stack([model.base(_full_names(workload, row)) for row in workload.parameters(batch)]), dtype)
    return Job(lambda: _wait(target.value_and_gradient(u)), lambda result: result[1])


def _side_by_side(function: Callable, outputs: list[tf.TensorSpec], workload: Workload, batch: int) -> Callable:
    """A function of batches, compiled, in the pieces and on the cores that a fit would use."""
    if batch == 1:
        return Direct(lambda *inputs: function(list(inputs)))
    size = chunk_size((PIXELS * workload.supersampling) ** 2)
    compiled = tf.function(
        lambda *inputs: in_chunks(function, list(inputs), outputs, size), jit_compile=True, autograph=False
    )
    return Direct(lambda *inputs: in_streams(compiled, list(inputs)), jit_compile=False)


def _wait(result: list) -> list:
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), result)


def _model(workload: Workload, dtype: str) -> Callable[..., tf.Tensor]:
    """Images `[batch, ny, nx]` of parameters `[batch, names]` and, for a pixelated source, its pixels."""
    pixels = workload.source == "pixels"
    lens = EPL() if workload.lens == "EPL" else SIE()
    layer = LensLayer(
        PixelGrid((PIXELS, PIXELS), PIXEL_SCALE),
        mass=[lens, Shear()],
        source=[Pixelated(PIXEL_SCALE) if pixels else Sersic()],
        psf=workload.kernel,
        supersampling=workload.supersampling,
        dtype=dtype,
    )

    def model(parameters: tf.Tensor, image: tf.Tensor | None = None) -> tf.Tensor:
        values = dict(zip(workload.names, tf.unstack(parameters, axis=-1), strict=True))
        one = tf.ones_like(values["theta_E"])
        if pixels:
            source = {"image": image, "center_x": 0 * one, "center_y": 0 * one, "scale": one, "amp": one}
        else:
            source = {name: values[_LIGHT_NAMES.get(name, name)] for name in (*Sersic().parameter_names, "amp")}
        shear = {name: values[name] for name in Shear().parameter_names}
        mass = [{name: values[name] for name in lens.parameter_names}, shear]
        return layer({"mass": mass, "source": [source]})

    return model


def _inputs(workload: Workload, batch: int, dtype: str) -> list[tf.Tensor]:
    pixels = workload.pixels(batch)
    inputs = [tf.constant(workload.parameters(batch), dtype)]
    return inputs if pixels is None else [*inputs, tf.constant(pixels, dtype)]


def _full_names(workload: Workload, row: np.ndarray) -> dict[str, float]:
    values = dict(zip(workload.names, row, strict=True))
    full = {}
    for name in workload.names:
        if name in ("gamma1", "gamma2"):
            full[f"shear.{name}"] = values[name]
        elif name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y"):
            full[f"lens.{name}"] = values[name]
    for name in Sersic().parameter_names:
        full[f"source.{name}"] = values[_LIGHT_NAMES.get(name, name)]
    return full
