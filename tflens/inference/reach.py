"""Priors that cannot hold the lens in the image: told before a fit, which would not fail but find something else."""

import re

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.model import LensModel
from tflens.observation import Observation

_FAR = 5.0
"""Standard deviations of the base space: what lies beyond is never drawn."""


def check_reach(model: LensModel, observation: Observation) -> None:
    """Makes sure that the prior of every Einstein radius and centre, or its fixed value, reaches into the image.

    Raises:
        ParameterError: one does not; it is named, with its range and that of the image.

    Example:
        >>> from tflens.light import Sersic
        >>> image = np.random.default_rng(1).normal(size=(20, 30))
        >>> observation = Observation(image, np.ones((20, 30)), np.ones((1, 1)), pixel_scale=0.1)
        >>> check_reach(LensModel(source=Sersic(), priors={"lens.center_x": 0.5}), observation)
        >>> check_reach(LensModel(source=Sersic(), priors={"lens.center_x": 5.0}), observation)
        Traceback (most recent call last):
        ...
        tflens.errors.ParameterError: the prior of lens.center_x must reach into the image, which goes from -1.5 to 1.5
        arcsec, but it is 5. Give another prior, or check the pixel scale, 0.1 arcsec.
    """
    ny, nx = observation.image.shape
    half_x, half_y = (n * observation.pixel_scale / 2 for n in (nx, ny))
    inside = {
        "theta_E": (0.0, float(np.hypot(half_x, half_y))),
        "center_x": (-half_x, half_x),
        "center_y": (-half_y, half_y),
    }
    edges = _FAR * tf.constant([[-1.0], [1.0]], model.dtype) * tf.ones([1, model.dim], model.dtype)
    for name, values in model.physical(edges).items():
        label, _, own = name.rpartition(".")
        if own not in inside or not re.match("(lens|light|source)", label):
            continue
        low, high = sorted(float(value) for value in values)
        least, most = inside[own]
        if low > most or high < least:
            found = f"is {low:g}" if low == high else f"lies between {low:.3g} and {high:.3g}"
            raise ParameterError(
                f"the prior of {name} must reach into the image, which goes from {least:.4g} to {most:.4g} arcsec, but "
                f"it {found}. Give another prior, or check the pixel scale, {observation.pixel_scale:g} arcsec."
            )
