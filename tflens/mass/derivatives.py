"""Second derivatives of any lens, by forward-mode differentiation of its deflection."""

from collections.abc import Callable

import tensorflow as tf

from tflens.forward_mode import ForwardAccumulator

Deflection = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def hessian(deflection: Deflection, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Second derivatives (psi_xx, psi_xy, psi_yx, psi_yy) of the potential, whose gradient is `deflection`.

    psi_xy is d alpha_x / dy and psi_yx is d alpha_y / dx; they agree for a single plane, and not for the effective
    deflection of several. Works eagerly, in `tf.function` and under XLA; the result can be differentiated in reverse.

    Args:
        deflection: `(x, y) -> (alpha_x, alpha_y)`, arcsec, acting on each point by itself; parameters are bound.
        x, y: arcsec, of any shapes that broadcast against each other.

    Returns:
        Four tensors of the shape of the deflection, dimensionless.

    Example:
        >>> import tensorflow as tf
        >>> quadratic = lambda x, y: (0.1 * x + 0.2 * y, 0.2 * x - 0.1 * y)
        >>> [round(float(v[0, 0]), 5) for v in hessian(quadratic, tf.constant([[1.0]]), tf.constant([[2.0]]))]
        [0.1, 0.2, 0.2, -0.1]
    """
    # Two passes forward, one a coordinate: a row x and a column y need not be spread over the mesh first,
    # as the reverse mode would need (its gradient with respect to a row is a sum over the mesh).
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    psi_xx, psi_yx = _pushforward(deflection, x, y, tf.ones_like(x), tf.zeros_like(y))
    psi_xy, psi_yy = _pushforward(deflection, x, y, tf.zeros_like(x), tf.ones_like(y))
    return psi_xx, psi_xy, psi_yx, psi_yy


def _pushforward(
    deflection: Deflection, x: tf.Tensor, y: tf.Tensor, dx: tf.Tensor, dy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    with ForwardAccumulator([x, y], [dx, dy]) as accumulator:
        alpha_x, alpha_y = deflection(x, y)
    # A component that does not depend on the coordinates has no tangent.
    tangents = (accumulator.jvp(alpha) for alpha in (alpha_x, alpha_y))
    return tuple(
        tf.zeros_like(alpha) if tangent is None else tangent
        for alpha, tangent in zip((alpha_x, alpha_y), tangents, strict=True)
    )
