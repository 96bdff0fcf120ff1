"""The sum of mass profiles at one redshift, as plain functions of position."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass.base import MassProfile


class Total(NamedTuple):
    """A lens as functions of position `(x, y)`, arcsec; its parameters are closed over."""

    deflection: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    potential: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    convergence: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def total(profiles: Sequence[MassProfile], values: Sequence[Mapping[str, tf.Tensor | float]]) -> Total:
    """Deflection (arcsec), potential (arcsec^2) and convergence of all profiles together.

    Args:
        profiles: mass profiles of one lens plane; none at all is no lens.
        values: for each profile its parameters by name, of shape `[...batch]` and the coordinates' dtype.

    Returns:
        Three functions of `x`, `y`, whose results are `[...batch, ny, nx]`.

    Raises:
        ParameterError: there are not as many dictionaries of parameters as profiles.

    Example:
        >>> import tensorflow as tf
        >>> from tflens.mass import SIE, Shear
        >>> sie = {"theta_E": 1.0, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> lens = total([SIE(), Shear()], [sie, {"gamma1": 0.1, "gamma2": 0.0}])
        >>> alpha_x, _ = lens.deflection(tf.constant([[2.0]]), tf.constant([[0.0]]))
        >>> round(float(alpha_x[0, 0]), 5)
        1.2
    """
    if len(profiles) != len(values):
        raise ParameterError(
            f"total needs one dictionary of parameters for each profile, got {len(profiles)} profile(s) "
            f"{list(profiles)} and {len(values)} dictionaries"
        )
    pairs = list(zip(profiles, values, strict=True))

    def deflection(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        alphas = [profile.deflection(x, y, **v) for profile, v in pairs]
        if not alphas:
            return tf.zeros_like(x + y), tf.zeros_like(x + y)
        return _sum([alpha_x for alpha_x, _ in alphas]), _sum([alpha_y for _, alpha_y in alphas])

    def potential(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return _sum([profile.potential(x, y, **v) for profile, v in pairs] or [tf.zeros_like(x + y)])

    def convergence(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return _sum([profile.convergence(x, y, **v) for profile, v in pairs] or [tf.zeros_like(x + y)])

    return Total(deflection, potential, convergence)


def _sum(terms: list[tf.Tensor]) -> tf.Tensor:
    # Not `sum(terms)`: that starts with an addition to 0.
    return sum(terms[1:], terms[0])
