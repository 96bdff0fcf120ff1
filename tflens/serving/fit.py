"""The whole fit as a signature: from images to posteriors, in TensorFlow alone."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens._tfp import mcmc, tfp
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.inference.fit_program import Fitted, fit_program
from tflens.inference.settings import FitSettings
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation
from tflens.psf import convolve_by_fft
from tflens.seen import Beside, Seen
from tflens.serving.lens import amplitude_arguments, parameter_arguments, whitened
from tflens.serving.signature import Argument, Signature, Tensors, identifier

PIXELS = 64
"""Along each side of the picture of the source."""

_QUANTILES = (16.0, 50.0, 84.0)
_SUMMED_UP = 256  # draws of the posterior that intervals are counted from, at the most


def fit_signatures(
    model: LensModel,
    grid: PixelGrid,
    psf_side: int,
    settings: FitSettings | None = None,
    source_scale: float = 0.05,
) -> list[Signature]:
    """`fit` and `fit_without_xla`: image, noise, PSF, mask and seed to a summary of the posterior, the best model and
    diagnostics.

    The two are the same program, the physics of the first compiled by XLA when it is called: faster, but not every
    server has it.

    Args:
        model: its priors say where the lens is expected: by default near the middle of the image.
        grid: the image's pixels.
        psf_side: pixels along each side of the PSFs that requests bring, odd.
        settings: `FitSettings()` if None. Requests bring seeds of their own.
        source_scale: pixels of the picture of the source, arcsec.

    Raises:
        ParameterError: `psf_side` is even or not positive, the model has no source or one without an image of its own,
            or the settings ask for another sampler than "hmc" or another start than "broad".

    Example:
        >>> from tflens.light import Sersic
        >>> signatures = fit_signatures(LensModel(lens_light=[], source=Sersic()), PixelGrid((20, 30), 0.1), 5)
        >>> [each.name for each in signatures], [each.name for each in signatures[0].inputs]
        (['fit', 'fit_without_xla'], ['image', 'noise', 'psf', 'mask', 'seed'])
    """
    if isinstance(psf_side, bool) or not isinstance(psf_side, int) or psf_side < 1 or psf_side % 2 == 0:
        raise ParameterError(f"psf_side must be a positive odd number of pixels, got {psf_side!r}")
    if not model.sources:
        raise ParameterError("a lens cannot be fitted without a source: give LensModel a source")
    settings = settings or FitSettings()
    if (settings.sampler, settings.start) != ("hmc", "broad"):
        raise ParameterError(
            "the fit of a SavedModel has FitSettings.sampler 'hmc' and FitSettings.start 'broad' alone, got "
            f"{settings.sampler!r} and {settings.start!r}"
        )
    inputs, outputs = _inputs(model, grid, psf_side), _outputs(model, grid, settings)
    meaning = (
        f"A whole fit of each image: {settings.starts} starts from the prior, Adam, Levenberg-Marquardt, and "
        f"{settings.chains} chains of Hamiltonian Monte Carlo with {settings.draws} draws each. Pixels with data or "
        "noise that are no finite numbers, or noise that is not positive, are left out as the mask's are. Neighbours "
        "must be masked."
    )
    return [
        Signature(name, f"{meaning} {how}", _fit(target, inputs, outputs, settings, source_scale), inputs, outputs)
        for name, how, target in (
            ("fit", "Compiled by XLA at the first call.", _Target(model, grid, settings.supersampling, xla=True)),
            (
                "fit_without_xla",
                "The same for a server that has no XLA, and slower.",
                _Target(model, grid, settings.supersampling, xla=False),
            ),
        )
    ]


def _fit(
    target: "_Target",
    inputs: Sequence[Argument],
    outputs: Sequence[Argument],
    settings: FitSettings,
    source_scale: float,
) -> Callable[[Tensors], Tensors]:
    specs = {each.name: tf.TensorSpec(each.shape[1:], each.dtype) for each in outputs}

    def one(given: tuple[tf.Tensor, ...]) -> Tensors:
        image, noise, psf, mask, seed = given
        mine = target.given(_seen(image, noise, psf, mask))
        fitted = fit_program(mine, seed, settings)
        return _pictures(mine, fitted, source_scale) | _summary(mine, fitted, seed)

    def fit(given: Tensors) -> Tensors:
        # One lens after another: each has starts and chains enough for all cores.
        lenses = tuple(given[each.name] for each in inputs)
        return tf.map_fn(one, lenses, fn_output_signature=specs, parallel_iterations=1)

    return fit


class _SeenThrough(NamedTuple):
    """`tflens.model.Seen` with a PSF, `[side, side]` of unit sum."""

    taps: tf.Tensor
    modes: tf.Tensor
    data: tf.Tensor
    prior_scale: tf.Tensor
    beside: Beside
    psf: tf.Tensor


class _Target(LensTarget):
    """The log posterior of data that are tensors of a program, their PSF included."""

    def __init__(self, model: LensModel, grid: PixelGrid, supersampling: int, xla: bool) -> None:
        # Only its shape counts; the PSF is the request's.
        any_image = np.arange(float(np.prod(grid.shape))).reshape(grid.shape)
        observation = Observation(any_image, np.ones(grid.shape), np.ones((1, 1)), pixel_scale=grid.pixel_scale)
        super().__init__(model, observation, supersampling=supersampling, xla=xla)

    def value_and_gradient(self, u: tf.Tensor, power: float | tf.Tensor = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
        return self.tempered(tf.stop_gradient(u), tf.convert_to_tensor(power, u.dtype), self.seen)

    def images(self, u: tf.Tensor, amplitudes: tf.Tensor) -> tf.Tensor:
        """Of all components, `[components, ny, nx]`, at one point."""
        images = self._unit_images(u[None, : self.model.physical_dim], self.model.source_images(u[None]), self.seen)
        return self._blurred(images, self.seen.psf)[0] * amplitudes[:, None, None]

    def _whiten(self, images: tf.Tensor, seen: Seen) -> tf.Tensor:
        psf = getattr(seen, "psf", None)  # none while the target is made
        return super()._whiten(images if psf is None else self._blurred(images, psf), seen)

    def _blurred(self, images: tf.Tensor, psf: tf.Tensor) -> tf.Tensor:
        """Images `[..., ny, nx]` seen through a PSF; a sky, the last of all components, is the same everywhere."""
        components = len(self.model.amplitude_names)
        if self.model.sky and images.shape.rank > 3 and images.shape[-3] == components:
            return tf.concat([convolve_by_fft(images[..., :-1, :, :], psf), images[..., -1:, :, :]], -3)
        return convolve_by_fft(images, psf)


def _seen(image: tf.Tensor, noise: tf.Tensor, psf: tf.Tensor, mask: tf.Tensor) -> _SeenThrough:
    total, used = tf.reduce_sum(psf), mask & tf.math.is_finite(image) & tf.math.is_finite(noise) & (noise > 0)
    good, usable = tf.math.is_finite(total) & (total > 0), tf.reduce_any(used)
    checks = [
        tf.debugging.Assert(good, ["psf must be of finite numbers with a positive sum, got the sum", total]),
        tf.debugging.Assert(usable, ["no pixel can be used: the mask is false, or the noise not positive", used]),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):  # None outside of a program
        flat = [tf.reshape(each, [-1]) for each in (image, noise, used)]
    weight, data, prior_scale = whitened(*flat)
    return _SeenThrough(
        taps=tf.reshape(weight, [1, *image.shape]),
        modes=tf.zeros([0, data.shape[0]], image.dtype),
        data=data,
        prior_scale=prior_scale,
        beside=Beside.none(image.dtype),
        psf=psf / total,
    )


def _pictures(target: _Target, fitted: Fitted, source_scale: float) -> Tensors:
    """The best model, amplitudes at their conditional mean."""
    model, u = target.model, fitted.u
    solution = target.linear(u[None])
    amplitudes = solution.mean[0]
    images = target.images(u, amplitudes)
    lensed = tf.reduce_sum(tf.gather(images, tf.constant(model.source_amplitudes)), 0)
    image = tf.reduce_sum(images, 0)
    weight = target.seen.taps[0]
    used = tf.reduce_sum(tf.cast(weight > 0, image.dtype))
    values = model.physical(u[None])
    inputs = model.layer_inputs(values, model.source_images(u[None]))["source"]
    label = model.labelled_sources()[0][0]
    center = [values.get(f"{label}.center_{axis}", tf.zeros([1], u.dtype))[0] for axis in "xy"]
    x, y = (tf.constant(axis, u.dtype) for axis in PixelGrid((PIXELS, PIXELS), source_scale).coordinates())
    places = x + center[0], y + center[1]
    source = sum(
        profile.brightness(*places, **each)[0] * amplitudes[place]
        for profile, each, place in zip(model.sources, inputs, model.source_amplitudes, strict=True)
    )
    residual = tf.reshape(target.seen.data, weight.shape) - weight * image
    return {
        "image": image,
        "lensed_source": lensed,
        "residual": residual,
        "source": source,
        "source_center": tf.stack(center),
        "u": u,
        "log_prob": fitted.log_prob,
        "chi2": tf.reduce_sum(residual**2) / used,
    }


def _summary(target: _Target, fitted: Fitted, seed: tf.Tensor) -> Tensors:
    """Intervals of all parameters, and what tells a good fit from a bad one."""
    model, draws = target.model, fitted.draws
    chains, count, dim = draws.shape
    kept = tf.reshape(draws[:, :: _every(chains, count)], [-1, dim])
    values = model.physical(kept)
    values = {name: tf.broadcast_to(values[name], [kept.shape[0]]) for name in model.names}
    amplitudes = _draw_amplitudes(target, kept, seed)
    values |= dict(zip(model.amplitude_names, tf.unstack(amplitudes, axis=-1), strict=True))
    found = {
        identifier(name): tf.cast(tfp.stats.percentile(value, _QUANTILES, interpolation="linear"), value.dtype)
        for name, value in values.items()
    }
    # [draws, chains, dim], as TensorFlow Probability takes them.
    ordered = tf.transpose(draws, [1, 0, 2])
    r_hat = mcmc.potential_scale_reduction(ordered, split_chains=True)
    ess = mcmc.effective_sample_size(ordered, filter_beyond_positive_pairs=True, cross_chain_dims=1)
    return found | {
        "draws": kept,
        "max_r_hat": tf.reduce_max(r_hat),
        "min_ess": tf.reduce_min(ess),
        "acceptance": fitted.acceptance,
        "divergences": fitted.divergences,
        "starts_agreeing": fitted.agreeing,
        "bad_gradients": fitted.bad_gradients,
    }


def _every(chains: int, draws: int) -> int:
    """Which of a chain's draws are kept: one of so many."""
    return -(-chains * draws // _SUMMED_UP)


def _draw_amplitudes(target: _Target, u: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """One set for each point `[n, dim]`, from their conditional normal; what may not be negative is cut off at 0."""
    solution = target.linear(u)
    scale = tf.sqrt(tf.linalg.diag_part(solution.covariance))
    correlation = tf.cast(solution.covariance / (scale[:, :, None] * scale[:, None, :]), tf.float64)
    # Two components that look alike leave a matrix that is positive definite to rounding only.
    root = tf.linalg.cholesky(correlation + 1e-6 * tf.eye(correlation.shape[-1], dtype=tf.float64))
    noise = tf.random.stateless_normal(tf.shape(scale), [tf.cast(seed, tf.int32), -1], dtype=tf.float64)
    drawn = solution.mean + scale * tf.cast(tf.linalg.matvec(root, noise), scale.dtype)
    return tf.where(tf.constant(target.model.positive), tf.nn.relu(drawn), drawn)


def _inputs(model: LensModel, grid: PixelGrid, psf_side: int) -> tuple[Argument, ...]:
    ny, nx = grid.shape
    pixels = f"pixels of {grid.pixel_scale:g} arcsec, [0, 0] at the bottom left"
    unit = "counts/s per pixel"
    return (
        Argument("image", (None, ny, nx), f"data; {pixels}", unit, model.dtype),
        Argument("noise", (None, ny, nx), "standard deviation, independent of its neighbours", unit, model.dtype),
        Argument("psf", (None, psf_side, psf_side), "PSF on the image's pixels; it is normalised", "", model.dtype),
        Argument("mask", (None, ny, nx), "true where a pixel is used", "", "bool"),
        Argument("seed", (None,), "the same gives the same fit", "", "int32"),
    )


def _outputs(model: LensModel, grid: PixelGrid, settings: FitSettings) -> tuple[Argument, ...]:
    quantiles = "16 %, 50 %, 84 % of the posterior"
    named: Sequence[Argument] = (*parameter_arguments(model), *amplitude_arguments(model))
    intervals = [
        Argument(each.name, (None, 3), f"{each.meaning}: {quantiles}", each.unit, each.dtype) for each in named
    ]
    unit, brightness = "counts/s per pixel", "counts/s/arcsec^2"
    kept = settings.chains * len(range(0, settings.draws, _every(settings.chains, settings.draws)))
    number = model.dtype
    return (
        *intervals,
        Argument("image", (None, *grid.shape), "the best model", unit, number),
        Argument("lensed_source", (None, *grid.shape), "the arcs of the best model", unit, number),
        Argument("residual", (None, *grid.shape), "(data - best model) / noise, 0 where not used", "", number),
        Argument("source", (None, PIXELS, PIXELS), "the source of the best model, unlensed", brightness, number),
        Argument("source_center", (None, 2), "x and y of the middle of `source`", "arcsec", number),
        Argument("u", (None, model.dim), "the best point of the base space", "", number),
        Argument("log_prob", (None,), "log posterior there, without constants", "nats", number),
        Argument("chi2", (None,), "chi^2 per used pixel of the best model", "", number),
        Argument("draws", (None, kept, model.dim), "of the posterior, points of the base space", "", number),
        Argument("max_r_hat", (None,), "largest split R-hat of the base space; at 1.05 chains disagree", "", number),
        Argument("min_ess", (None,), "smallest effective sample size of the base space", "", number),
        Argument("acceptance", (None,), "mean probability with which proposals were accepted", "", number),
        Argument("divergences", (None,), "trajectories that went astray", "", "int32"),
        Argument("starts_agreeing", (None,), "polished starts within 2 nats of the best, itself one", "", "int32"),
        Argument("bad_gradients", (None,), "gradients of the search that were no finite numbers", "", "int32"),
    )
