"""A lens of 20 x 24 pixels and its float64 models: small enough for laws to be tested in many places."""

import functools

import numpy as np
import tensorflow as tf

from tflens.grid import PixelGrid
from tflens.light import LightProfile, Pixelated, Sersic
from tflens.mass import EPL, Shear
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation

SHAPE, PIXEL_SCALE, NOISE = (20, 24), 0.15, 0.02
DELTA = np.ones((1, 1))
PSF = np.outer([1.0, 3.0, 1.0], [1.0, 3.0, 6.0, 2.0, 1.0]) / 65  # not round, not even: a transposed PSF would show
TRUTH = {
    "lens.theta_E": 0.8,
    "lens.gamma": 1.9,
    "lens.e1": 0.1,
    "lens.e2": -0.05,
    "lens.center_x": 0.08,
    "lens.center_y": -0.06,
    "shear.gamma1": 0.03,
    "shear.gamma2": -0.02,
    "light.R_sersic": 0.4,
    "light.n_sersic": 2.5,
    "light.e1": 0.05,
    "light.e2": 0.1,
    "light.center_x": 0.06,
    "light.center_y": -0.03,
    "source.center_x": 0.1,
    "source.center_y": 0.03,
}
SERSIC_SOURCE = {"source.R_sersic": 0.2, "source.n_sersic": 1.2, "source.e1": -0.1, "source.e2": 0.1}
AMPLITUDES = (3.0, 8.0, 0.01)  # lens light, source, sky


class Blobs(Pixelated):
    """A stand-in for a network: a smooth, nonlinear map from three latents to 6 x 7 pixels of unit flux."""

    latent_dim = 3

    def __init__(self) -> None:
        super().__init__(pixel_scale=0.12)
        # A trainable variable, as the weights of a network are.
        self._directions = tf.Variable(np.random.default_rng(7).normal(size=(self.latent_dim, 6 * 7)))

    def image(self, u: tf.Tensor) -> tf.Tensor:
        flat = tf.nn.softmax(tf.matmul(u, tf.cast(self._directions, u.dtype)))
        return tf.reshape(flat, [-1, 6, 7])


def model(source: LightProfile | list[LightProfile] | None = None, dtype: str = "float64", **settings) -> LensModel:
    lens = [EPL(max_ellipticity=0.3, tolerance=1e-13), Shear()]
    return LensModel(lens, [Sersic()], source or Sersic(), dtype=dtype, **settings)


@functools.cache
def truth() -> np.ndarray:
    """The true u of the model with a Sersic source, `[dim]`."""
    return model().base(TRUTH | SERSIC_SOURCE)


def blank(psf: np.ndarray = PSF, shape: tuple[int, int] = SHAPE, scale: float = PIXEL_SCALE) -> Observation:
    """Noise alone."""
    image = np.random.default_rng(1).normal(0, NOISE, shape)
    return Observation(image, np.full(shape, NOISE), psf, scale)


@functools.cache
def observation(noisy: bool = True) -> Observation:
    """The lens at `truth`."""
    target = LensTarget(model(), blank())
    image = target.component_images(tf.constant(truth()[None]), tf.constant([AMPLITUDES], tf.float64))
    image = image.numpy()[0].sum(0) + noisy * np.random.default_rng(2).normal(0, NOISE, SHAPE)
    return Observation(image, np.full(SHAPE, NOISE), PSF, PIXEL_SCALE)


@functools.cache
def target(noisy: bool = True) -> LensTarget:
    """The posterior of the lens with a Sersic source. Do not exchange its mask."""
    return LensTarget(model(), observation(noisy))


@functools.cache
def latent_target() -> LensTarget:
    """The same data with the latent source. Do not exchange its mask."""
    return LensTarget(model(Blobs()), observation())


def near_truth(n: int, width: float, seed: int = 0) -> np.ndarray:
    """Points `[n, dim]` around `truth`."""
    return truth() + width * np.random.default_rng(seed).normal(size=(n, len(truth())))


def grid() -> PixelGrid:
    return PixelGrid(SHAPE, PIXEL_SCALE)
