"""The signatures of a lens model on a given grid with a given PSF.

One more, such as the whole fit, is one more function here that returns a `Signature`, in the list of `lens_signatures`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.linear import SMALLEST_PRIOR_SCALE, marginalize
from tflens.model import LensModel
from tflens.serving.signature import Argument, Signature, Tensors, identifier


def lens_signatures(
    model: LensModel, grid: PixelGrid, psf: np.ndarray | None = None, supersampling: int = 2
) -> list[Signature]:
    """`simulate`, `parameters` and `log_prob` of a lens model.

    Parameters have the names of the model with an underscore for the dot; those that the model holds fixed or ties to
    another are no inputs. Numbers are of the model's `dtype`.

    Args:
        model: its sources make images of their own, or take none.
        grid: the image's pixels.
        psf: kernel `[odd, odd]` of unit sum on the grid's pixel scale, or None.
        supersampling: samples along each side of a pixel, at the nodes of a Gauss-Legendre rule, as in a fit.

    Raises:
        ParameterError: a source takes an image and has none of its own, or a setting cannot be used.

    Example:
        >>> from tflens.light import Sersic
        >>> signatures = lens_signatures(LensModel(lens_light=[], source=Sersic()), PixelGrid((20, 30), 0.1))
        >>> [signature.name for signature in signatures]
        ['simulate', 'parameters', 'log_prob']
        >>> [each.name for each in signatures[0].inputs][:3]
        ['lens_theta_E', 'lens_gamma', 'lens_e1']
    """
    for number in model.of_images:
        if not model.latent_dims[number]:
            raise ParameterError(f"the source {model.sources[number]!r} has no image of its own and cannot be exported")
    layer = LensLayer(
        grid,
        mass=model.lens,
        lens_light=model.lens_light,
        source=model.sources,
        psf=psf,
        supersampling=supersampling,
        quadrature="gauss-legendre",
        exact_cusps=True,
        dtype=model.dtype,
    )
    return [each(model, layer) for each in (_simulate, _parameters, _log_prob)]


def unit_images(
    model: LensModel, layer: LensLayer, values: Mapping[str, Any], sources: list[tf.Tensor], batch: tf.Tensor
) -> tf.Tensor:
    """Images `[batch, components, ny, nx]` of all linear components for unit amplitude, in the order of the model's
    `amplitude_names`."""
    images = layer.images(model.layer_inputs(values, sources))
    if model.sky:
        images.append(tf.ones([1, *layer.grid.shape], model.dtype))
    shape = tf.concat([batch, layer.grid.shape], 0)
    return model.observed(tf.stack([tf.broadcast_to(image, shape) for image in images], axis=-3), values)


def _simulate(model: LensModel, layer: LensLayer) -> Signature:
    latents = _latents_argument(model)

    def simulate(given: Tensors) -> Tensors:
        batch = tf.shape(given[identifier(next(iter([*model.names, *model.amplitude_names])))])
        values = model.complete({name: given[identifier(name)] for name in model.names})
        values = {name: tf.fill(batch, tf.cast(v, model.dtype)) if np.isscalar(v) else v for name, v in values.items()}
        u = tf.zeros(tf.concat([batch, [model.physical_dim]], 0), model.dtype)
        if latents:
            u = tf.concat([u, given[latents[0].name]], -1)
        amplitudes = tf.stack([given[identifier(name)] for name in model.amplitude_names], -1)
        images = unit_images(model, layer, values, model.source_images(u), batch) * amplitudes[..., None, None]
        lensed = tf.gather(images, tf.constant(model.source_amplitudes, tf.int32), axis=1)
        return {"image": tf.reduce_sum(images, 1), "lensed_source": tf.reduce_sum(lensed, 1)}

    inputs = (*parameter_arguments(model), *latents, *amplitude_arguments(model))
    example = {each.name: np.ones((1, *each.shape[1:]), each.dtype) for each in inputs}
    example |= {name: value.numpy() for name, value in _by_name(model, _middle(model)).items()}
    return Signature(
        "simulate",
        "The image of a lens without noise: ray-shot, integrated over each pixel, convolved with the PSF.",
        simulate,
        inputs=inputs,
        outputs=(
            _image(model, layer, "image", "lens light, arcs and sky"),
            _image(model, layer, "lensed_source", "the arcs alone"),
        ),
        example=example,
    )


def _parameters(model: LensModel, layer: LensLayer) -> Signature:
    return Signature(
        "parameters",
        "The physical parameters at points u of the base space, in which the prior is N(0, I): what `simulate` takes, "
        "but for the amplitudes, which `log_prob` gives.",
        lambda given: _by_name(model, given["u"]),
        inputs=(_base(model),),
        outputs=(*parameter_arguments(model), *_latents_argument(model)),
        example={"u": _middle(model).numpy()},
    )


def _log_prob(model: LensModel, layer: LensLayer) -> Signature:
    def log_prob(given: Tensors) -> Tensors:
        u = given["u"]
        with tf.GradientTape() as tape:
            tape.watch(u)
            value, amplitudes = _log_posterior(model, layer, **given)
        names = [identifier(name) for name in model.amplitude_names]
        solved = dict(zip(names, tf.unstack(amplitudes, axis=-1), strict=True))
        return {"log_prob": value, "gradient": tape.gradient(value, u), **solved}

    ny, nx = layer.grid.shape
    image = _image(model, layer, "image", "data; any unit that the noise shares will do")
    noise = _image(model, layer, "noise", "standard deviation of each pixel, independent of its neighbours")
    return Signature(
        "log_prob",
        "The log posterior of u given an image, amplitudes of light integrated out in closed form, and its gradient. "
        "Image, noise and mask may have the batch axis 1, for many points u and one image.",
        log_prob,
        inputs=(
            _base(model),
            image,
            noise,
            Argument("mask", (None, ny, nx), "true where a pixel is used", dtype="bool"),
        ),
        outputs=(
            Argument(
                "log_prob",
                (None,),
                "log posterior without the constants of the prior and of the noise",
                "nats",
                model.dtype,
            ),
            Argument("gradient", (None, model.dim), "of log_prob by u", "nats", model.dtype),
            *amplitude_arguments(model, "the best for this u"),
        ),
        example={
            "u": _middle(model).numpy(),
            "image": np.random.default_rng(0).normal(size=(1, ny, nx)).astype(model.dtype),
            "noise": np.ones((1, ny, nx), model.dtype),
            "mask": np.ones((1, ny, nx), bool),
        },
    )


def _log_posterior(
    model: LensModel, layer: LensLayer, u: tf.Tensor, image: tf.Tensor, noise: tf.Tensor, mask: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Log posterior `[batch]` and conditional mean of the amplitudes `[batch, components]`.

    As that of `LensTarget`, but that every lane can have data of its own and nothing is compiled by XLA.
    """
    pixels = layer.grid.shape[0] * layer.grid.shape[1]
    batch = tf.shape(u)[:1]

    def flat(value: tf.Tensor) -> tf.Tensor:
        return tf.reshape(value, [-1, pixels])

    weight, data, scale = whitened(flat(image), flat(noise), flat(mask))
    images = unit_images(model, layer, model.physical(u), model.source_images(u), batch)
    design = tf.reshape(images, [-1, len(model.positive), pixels]) * weight[:, None]
    solution = marginalize(design, data, scale, model.positive)
    return solution.log_likelihood - 0.5 * tf.reduce_sum(u**2, -1), solution.mean


def whitened(image: tf.Tensor, noise: tf.Tensor, used: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """1 / noise and image / noise `[...batch, pixels]`, 0 where a pixel is not used, whatever stands there; and the
    width `[...batch]` of the amplitudes' prior (`tflens.linear.marginalize`), as `LensTarget` has it."""
    one, nothing = tf.ones([], image.dtype), tf.zeros([], image.dtype)
    weight = tf.where(used, one / tf.where(used, noise, one), nothing)
    data = tf.where(used, image, nothing) * weight
    norm = tf.sqrt(tf.reduce_sum(tf.cast(data, tf.float64) ** 2, -1))
    return weight, data, tf.maximum(tf.constant(SMALLEST_PRIOR_SCALE, tf.float64), norm)


def _by_name(model: LensModel, u: tf.Tensor) -> Tensors:
    values = model.physical(u)
    named = {identifier(name): values[name] for name in model.names}
    return named | {each.name: model.latents(u) for each in _latents_argument(model)}


def _middle(model: LensModel) -> tf.Tensor:
    """The median of the prior, `[1, dim]`."""
    return tf.zeros([1, model.dim], model.dtype)


def parameter_arguments(model: LensModel) -> tuple[Argument, ...]:
    """A number `[batch]` for each free physical parameter, in the order of the model, with its unit."""
    return tuple(
        Argument(identifier(name), (None,), entry.parameter.description, entry.parameter.unit, model.dtype)
        for entry in model.entries
        for name in entry.names
    )


def amplitude_arguments(model: LensModel, which: str = "") -> tuple[Argument, ...]:
    """A number `[batch]` for each amplitude, in the order of `amplitude_names`, with its unit; `which` of them."""
    lights = [*model.lens_light, *model.sources]
    found = []
    for number, name in enumerate(model.amplitude_names):
        if number >= len(lights):
            meaning, unit = "constant sky, of either sign", "counts/s per pixel"
        elif number - len(model.lens_light) in model.of_images:
            meaning, unit = "flux of the source before lensing", "counts/s"
        else:
            meaning, unit = "amplitude of the profile", "counts/s/arcsec^2"
        meaning = f"{meaning}, {which}" if which else meaning
        found.append(Argument(identifier(name), (None,), meaning, unit, model.dtype))
    return tuple(found)


def _latents_argument(model: LensModel) -> tuple[Argument, ...]:
    if not model.latent_dim:
        return ()
    meaning = "latent variables of the source in the base space, N(0, I) a priori"
    return (Argument("source_latents", (None, model.latent_dim), meaning, dtype=model.dtype),)


def _base(model: LensModel) -> Argument:
    return Argument("u", (None, model.dim), "point of the base space, N(0, I) a priori", dtype=model.dtype)


def _image(model: LensModel, layer: LensLayer, name: str, what: str) -> Argument:
    scale = f"{layer.grid.pixel_scale:g}"
    meaning = f"{what}; pixels of {scale} arcsec, [0, 0] at the bottom left"
    return Argument(name, (None, *layer.grid.shape), meaning, "counts/s per pixel", model.dtype)
