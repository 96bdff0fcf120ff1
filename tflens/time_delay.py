"""Time delays between the images of a point source."""

from typing import TYPE_CHECKING

import astropy.constants as const
import astropy.units as u
import tensorflow as tf

from tflens.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from astropy.cosmology import FLRW

DAYS_PER_MPC_ARCSEC2 = float((1 * u.Mpc * u.arcsec**2 / const.c).to_value(u.day, u.dimensionless_angles()))
"""Delay, in days, of a Fermat potential of 1 arcsec^2 at a time-delay distance of 1 Mpc."""


def fermat_potential(
    potential: "Callable[[tf.Tensor, tf.Tensor], tf.Tensor]",
    x: tf.Tensor,
    y: tf.Tensor,
    beta_x: tf.Tensor,
    beta_y: tf.Tensor,
) -> tf.Tensor:
    """Fermat potential |theta - beta|^2 / 2 - psi(theta), arcsec^2, of a single lens plane.

    Its stationary points are the images, so at an image its derivative with respect to the lens is that at fixed
    position: the shift of the image does not enter to first order (Schneider, Ehlers & Falco 1992, sect. 5.1).

    Args:
        potential: lensing potential, arcsec^2, as a function of x, y `[...batch, ny, nx]`.
        x, y: positions `[...batch, n]`, arcsec.
        beta_x, beta_y: source positions `[...batch]`, arcsec.

    Returns:
        `[...batch, n]`.

    Example:
        >>> x, y = tf.constant([[1.2, -0.8]]), tf.constant([[0.0, 0.0]])
        >>> phi = fermat_potential(lambda x, y: tf.sqrt(x**2 + y**2), x, y, beta_x=[0.2], beta_y=[0.0])
        >>> [round(float(v), 4) for v in phi[0]]
        [-0.7, -0.3]
    """
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    beta_x, beta_y = tf.convert_to_tensor(beta_x, x.dtype)[..., None], tf.convert_to_tensor(beta_y, x.dtype)[..., None]
    # Potentials want two axes of pixels behind the batch.
    psi = potential(x[..., None, :], y[..., None, :])[..., 0, :]
    return ((x - beta_x) ** 2 + (y - beta_y) ** 2) / 2 - psi


def time_delays(fermat: tf.Tensor, distance: tf.Tensor | float, found: tf.Tensor | None = None) -> tf.Tensor:
    """Delays in days behind the image that arrives first.

    A delay is the difference of Fermat potentials times the time-delay distance over c; the constants are astropy's
    (lenstronomy's megaparsec is rounded to nine digits, so its delays are 4.8e-10 longer at equal distance).

    Args:
        fermat: Fermat potential at the images `[...batch, n]`, arcsec^2.
        distance: time-delay distance `[...batch]`, Mpc; see `time_delay_distance`.
        found: which of the places hold an image, as `image_positions` returns it; the others get zero.

    Returns:
        `[...batch, n]`, days, zero for the first image; differentiable with respect to `fermat` and `distance`.

    Example:
        >>> delays = time_delays(tf.constant([[-0.7, -0.3]]), distance=3000.0)
        >>> [round(float(v), 1) for v in delays[0]]
        [0.0, 33.6]
    """
    fermat = tf.convert_to_tensor(fermat)
    distance = tf.convert_to_tensor(distance, fermat.dtype)[..., None]
    if found is None:
        found = tf.ones_like(fermat, tf.bool)
    first = tf.reduce_min(tf.where(found, fermat, tf.constant(float("inf"), fermat.dtype)), -1, keepdims=True)
    zero = tf.zeros_like(fermat)
    # No image at all: the infinity must not enter a product, nor its gradient.
    first = tf.where(tf.reduce_any(found, -1, keepdims=True), first, zero[..., :1])
    delay = tf.where(found, fermat - first, zero)
    return DAYS_PER_MPC_ARCSEC2 * distance * delay


def time_delay_distance(z_lens: float, z_source: float, cosmology: "FLRW") -> float:
    """Time-delay distance (1 + z_lens) D_l D_s / D_ls in Mpc.

    It scales as 1 / H0; multiply it by a tensor to make delays differentiable with respect to H0.

    Args:
        z_lens: redshift of the lens.
        z_source: redshift of the source.
        cosmology: any cosmology of `astropy.cosmology`.

    Raises:
        ParameterError: not 0 < z_lens < z_source.

    Example:
        >>> from astropy.cosmology import FlatLambdaCDM
        >>> round(time_delay_distance(0.5, 2.0, FlatLambdaCDM(H0=70, Om0=0.3)), 1)
        2972.4
    """
    if not 0 < z_lens < z_source < float("inf"):
        raise ParameterError(
            f"redshifts must satisfy 0 < z_lens < z_source, got z_lens={z_lens!r} and z_source={z_source!r}"
        )
    lens, source = (cosmology.angular_diameter_distance(z) for z in (z_lens, z_source))
    return float(((1 + z_lens) * lens * source / _between(z_lens, z_source, cosmology)).to_value(u.Mpc))


def _between(z_lens: float, z_source: float, cosmology: "FLRW") -> u.Quantity:
    """Angular diameter distance of the source as seen from the lens."""
    try:
        return cosmology.angular_diameter_distance(z_lens, z_source)
    except TypeError:  # astropy before 8 has a method of its own for two redshifts, which 8 warns of
        return cosmology.angular_diameter_distance_z1z2(z_lens, z_source)
