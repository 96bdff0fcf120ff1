"""The signatures of a galaxy model."""

import numpy as np
import tensorflow as tf

from tflens.galaxies.source import GalaxyModel
from tflens.serving.signature import Argument, Signature, Tensors

MOST_DRAWS = 1024
"""Galaxies that one call of `sample_prior` draws at most: a served model must not be talked into filling the memory."""


def galaxy_signatures(model: GalaxyModel) -> list[Signature]:
    """`encode`, `decode`, `sample_prior` and `log_prior` of a galaxy model.

    In float32, as the networks compute; results are those of the model's methods to rounding (see docs/serving.md).

    Example:
        >>> from tflens.galaxies.source import load_galaxy_model
        >>> [signature.name for signature in galaxy_signatures(load_galaxy_model())]
        ['encode', 'decode', 'sample_prior', 'log_prior']
    """
    return [_encode(model), _decode(model), _sample_prior(model), _log_prior(model)]


def _encode(model: GalaxyModel) -> Signature:
    side, dim = model.stamp_size, model.latent_dim

    def encode(given: Tensors) -> Tensors:
        mean, scale = model.encode(given["image"], given["sigma"])
        return {"mean": mean, "covariance": tf.matmul(scale, scale, transpose_b=True)}

    seen = "" if model.psf is None else ", seen through the PSF of the training"
    return Signature(
        "encode",
        "The posterior of the latent variables given a noisy image of a galaxy: a Gaussian.",
        encode,
        inputs=(
            Argument(
                "image",
                (None, side, side),
                f"a centred galaxy of unit flux before noise, pixels of {model.pixel_scale:g} arcsec{seen}",
                "of the galaxy's flux, per pixel",
            ),
            Argument("sigma", (None,), "standard deviation of the image's noise", "of the galaxy's flux, per pixel"),
        ),
        outputs=(
            Argument("mean", (None, dim), "of the latent variables z"),
            Argument("covariance", (None, dim, dim), "of the latent variables z"),
        ),
        example={
            "image": np.full((1, side, side), 1 / side**2, np.float32),
            "sigma": np.full(1, 0.1 / side, np.float32),
        },
    )


def _decode(model: GalaxyModel) -> Signature:
    where = "before any PSF" if model.before_psf else "as it was observed"
    return Signature(
        "decode",
        "The galaxy that latent variables stand for.",
        lambda given: {"galaxy": model.decode(given["z"])},
        inputs=(_latents(model),),
        outputs=(_galaxy(model, f"positive, of unit sum, {where}"),),
        example={"z": np.zeros((1, model.latent_dim), np.float32)},
    )


def _sample_prior(model: GalaxyModel) -> Signature:
    def sample_prior(given: Tensors) -> Tensors:
        n = given["n"]
        allowed = tf.debugging.Assert(
            (n > 0) & (n <= MOST_DRAWS), [f"sample_prior: n must be from 1 to {MOST_DRAWS}, got", n]
        )
        with tf.control_dependencies([allowed]):
            n = tf.identity(n)
        u = tf.random.stateless_normal([n, model.latent_dim], tf.stack([given["seed"], 0]))
        z = model.to_latent(u, given.get("condition"))
        return {"galaxy": model.decode(z), "z": z}

    condition = _condition(model, batch=False)
    return Signature(
        "sample_prior",
        f"Galaxies drawn from the prior, at most {MOST_DRAWS} of them; the same for the same seed. Its inputs have no "
        "batch axis.",
        sample_prior,
        inputs=(
            Argument("seed", (), "of the draws", dtype="int32"),
            Argument("n", (), "number of galaxies", dtype="int32"),
            *condition,
        ),
        outputs=(_galaxy(model, "positive, of unit sum"), _latents(model)),
        example={
            "seed": np.array(0, np.int32),
            "n": np.array(1, np.int32),
            **{each.name: np.zeros(each.shape, np.float32) for each in condition},
        },
    )


def _log_prior(model: GalaxyModel) -> Signature:
    def log_prior(given: Tensors) -> Tensors:
        u, log_det = model.flow.inverse_and_log_det(given["z"], given.get("condition"))
        normal = -0.5 * tf.reduce_sum(u**2, -1) - 0.5 * model.latent_dim * float(np.log(2 * np.pi))
        return {"log_prior": normal + log_det, "u": u}

    condition = _condition(model, batch=True)
    return Signature(
        "log_prior",
        "How probable latent variables are among the galaxies of the training: their log density under the flow.",
        log_prior,
        inputs=(_latents(model), *condition),
        outputs=(
            Argument("log_prior", (None,), "log density of z, normalised", "nats"),
            Argument("u", (None, model.latent_dim), "z in the flow's base space: N(0, I) if z is drawn from the prior"),
        ),
        example={
            "z": np.zeros((1, model.latent_dim), np.float32),
            **{each.name: np.zeros((1, *each.shape[1:]), np.float32) for each in condition},
        },
    )


def _latents(model: GalaxyModel) -> Argument:
    return Argument("z", (None, model.latent_dim), "latent variables")


def _galaxy(model: GalaxyModel, what: str) -> Argument:
    side = model.stamp_size
    return Argument(
        "galaxy",
        (None, side, side),
        f"{what}; pixels of {model.pixel_scale:g} arcsec, [0, 0] at the bottom left",
        "of the galaxy's flux, per pixel",
    )


def _condition(model: GalaxyModel, batch: bool) -> tuple[Argument, ...]:
    if model.condition is None:
        return ()
    known = model.condition
    names = [*known.names, *(f"log {name}" for name in known.logarithmic)]
    names += [f"{name} in one-hot form ({count})" for name, count in known.classes.items()]
    shape = (None, known.dim) if batch else (known.dim,)
    return (Argument("condition", shape, f"what is known of the galaxy: {', '.join(names)}"),)
