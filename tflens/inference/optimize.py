"""Optimisation of many starts at once: Adam to find the basin, Levenberg-Marquardt to reach its bottom.

Every loop is one compiled program over all starts; the host is only asked between chunks, to show progress.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import tensorflow as tf

from tflens.bands import BandsTarget
from tflens.density import Density
from tflens.linear import LinearSolution, positivity_residual
from tflens.model import LensTarget

LogProb = Callable[[tf.Tensor], tf.Tensor]

_BETA1, _BETA2, _EPSILON = 0.9, 0.99, 1e-8


class AdamState(NamedTuple):
    """Positions `[starts, dim]`, moments of their gradients, steps taken, and non-finite gradients met per start."""

    u: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor
    step: tf.Tensor
    bad: tf.Tensor


def start_adam(u: tf.Tensor) -> AdamState:
    """The state before the first step."""
    zeros = tf.zeros_like(u)
    return AdamState(u, zeros, zeros, tf.constant(0), tf.zeros(tf.shape(u)[:1], tf.int32))


def adam(
    value_and_gradient: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    state: AdamState,
    learning_rates: tf.Tensor,
) -> tuple[AdamState, tf.Tensor]:
    """Ascends a log density from every start, one Adam step for each entry of `learning_rates`.

    A non-finite gradient leaves its start where it is for that step and is counted in `state.bad`.

    Returns:
        The new state and the log density `[starts]` met at the last step.
    """

    def body(i: tf.Tensor, state: AdamState, _: tf.Tensor) -> tuple[tf.Tensor, AdamState, tf.Tensor]:
        value, gradient = value_and_gradient(state.u)
        finite = tf.reduce_all(tf.math.is_finite(gradient), -1) & tf.math.is_finite(value)
        gradient = tf.where(finite[:, None], gradient, 0.0)
        step = state.step + 1
        mean = _BETA1 * state.mean + (1 - _BETA1) * gradient
        square = _BETA2 * state.square + (1 - _BETA2) * gradient**2
        t = tf.cast(step, gradient.dtype)
        direction = (mean / (1 - _BETA1**t)) / (tf.sqrt(square / (1 - _BETA2**t)) + _EPSILON)
        moved = state.u + learning_rates[i] * direction
        u = tf.where(finite[:, None], moved, state.u)
        bad = state.bad + tf.cast(~finite, tf.int32)
        return i + 1, AdamState(u, mean, square, step, bad), value

    steps = tf.shape(learning_rates)[0]
    last = tf.fill(tf.shape(state.u)[:1], tf.constant(float("-inf"), state.u.dtype))
    _, state, last = tf.while_loop(lambda i, *_: i < steps, body, (tf.constant(0), state, last))
    return state, last


class LMState(NamedTuple):
    """Positions `[starts, dim]`, damping `[starts]`, and the objective -2 log posterior (least-squares part)."""

    u: tf.Tensor
    damping: tf.Tensor
    objective: tf.Tensor


def start_levenberg_marquardt(u: tf.Tensor) -> LMState:
    """The state before the first step; the objective is filled in by it."""
    starts = tf.shape(u)[:1]
    return LMState(u, tf.fill(starts, tf.constant(1e-2, u.dtype)), tf.fill(starts, tf.constant(float("inf"), u.dtype)))


def levenberg_marquardt_step(target: Density, state: LMState) -> LMState:
    """One damped Gauss-Newton step of every start, amplitudes eliminated (variable projection).

    Minimises |whitened residual|^2 + |u|^2 plus the positivity of the amplitudes; the log determinant of the
    marginalised amplitudes, which varies slowly, is left to the sampler. Golub & Pereyra 2003 (Inverse Problems 19,
    R1) for the elimination, More 1978 for the damping.
    """

    def one(state_and_lens: tuple[LMState, tf.Tensor]) -> LMState:
        state, lens = state_and_lens
        mine = target.of(lens)
        system = gauss_newton(mine, state.u)
        # A lane that is not finite stays where it is: a solver must not fail for all lanes because of it.
        finite = tf.reduce_all(tf.math.is_finite(system.curvature)) & tf.reduce_all(tf.math.is_finite(system.gradient))
        curvature = tf.where(finite, system.curvature, tf.eye(tf.shape(state.u)[0], dtype=state.u.dtype))
        gradient = tf.where(finite, system.gradient, 0.0)
        # Four dampings are tried at once: a step is cheap beside its Jacobian.
        dampings = state.damping * tf.constant([0.1, 1.0, 10.0, 100.0], state.u.dtype)
        damped = curvature + tf.linalg.diag(dampings[:, None] * tf.linalg.diag_part(curvature))
        delta = tf.linalg.solve(damped, tf.repeat(gradient[None, :, None], 4, axis=0))[..., 0]
        trial = state.u - delta
        objective = least_squares_objective(mine, trial)
        objective = tf.where(tf.math.is_finite(objective), objective, float("inf"))
        best = tf.argmin(objective)
        # The same point in another program differs by its rounding: what was reached is what counts.
        reached = tf.minimum(state.objective, system.objective)
        improved = objective[best] < reached
        return LMState(
            tf.where(improved, trial[best], state.u),
            tf.clip_by_value(tf.where(improved, dampings[best], state.damping * 100), 1e-7, 1e7),
            tf.where(improved, objective[best], reached),
        )

    spec = tf.nest.map_structure(lambda each: tf.TensorSpec(each.shape[1:], each.dtype), state)
    return tf.map_fn(one, (state, target.lens_of_each(state.u.shape[0])), fn_output_signature=spec)


class GaussNewton(NamedTuple):
    """Half the Hessian of -2 log posterior in the Gauss-Newton approximation (the Fisher matrix plus the identity of
    the prior), half its gradient, and its value, at one point."""

    curvature: tf.Tensor
    gradient: tf.Tensor
    objective: tf.Tensor


class Linearized(NamedTuple):
    """Residuals near one point, each with its derivatives in every direction of u.

    Attributes:
        image: whitened residual `[pixels]` and its derivatives `[dim, pixels]`, amplitudes eliminated.
        positivity: `tflens.linear.positivity_residual` of the amplitudes `[components]`, and `[dim, components]`.
        amplitudes: `[components]`.
    """

    image: tuple[tf.Tensor, tf.Tensor]
    positivity: tuple[tf.Tensor, tf.Tensor]
    amplitudes: tf.Tensor


def linearized(target: LensTarget, u: tf.Tensor) -> Linearized:
    """The residuals of a target near one point u `[dim]`."""
    design, tangents = target.linearize(u)
    solution = target.solve(design)
    amplitudes = solution.mean
    shift = tf.einsum("kcp,c->kp", tangents, amplitudes)
    amplitude_tangents, sigma_tangents = _solution_tangents(design, tangents, solution, shift, target.seen.prior_scale)
    jacobian = -(shift + tf.matmul(amplitude_tangents, design))
    rho, slope = positivity_residual(solution, target.model.positive)
    # rho depends on mean / sigma, and both move with the design.
    rho_jacobian = (amplitude_tangents - amplitudes * sigma_tangents) * slope
    return Linearized((solution.residual, jacobian), (rho, rho_jacobian), amplitudes)


@singledispatch
def jacobian(target: LensTarget, u: tf.Tensor) -> tf.Tensor:
    """Derivatives `[dim, residuals]` of all residuals but the prior's at one point u `[dim]`."""
    found = linearized(target, u)
    return tf.concat([found.image[1], found.positivity[1]], 1)


@jacobian.register
def _(target: BandsTarget, u: tf.Tensor) -> tf.Tensor:
    of_bands = [
        target.spread(band, tf.transpose(jacobian(each, target.model.of_band(band, u))))
        for band, each in target.targets.items()
    ]
    return tf.transpose(tf.concat(of_bands, 0))


def slopes_of(target: LensTarget, u: tf.Tensor, patterns: tf.Tensor) -> tf.Tensor:
    """Derivatives `[batch, dim]` of the residuals' projections on patterns `[batch, residuals]` at points
    `[batch, dim]`: a gradient each, where `jacobian` costs as much as `dim` of them. Of the amplitudes' positivity, the
    last of the residuals, nothing is counted."""
    with tf.GradientTape() as tape:
        tape.watch(u)
        residual = target.linear(u).residual
        projection = tf.reduce_sum(residual * patterns[:, : residual.shape[-1]])
    return tape.gradient(projection, u)


@singledispatch
def gauss_newton(target: LensTarget, u: tf.Tensor) -> GaussNewton:
    """The Gauss-Newton system at one point u `[dim]`, of a `LensTarget` or a `BandsTarget`."""
    found = linearized(target, u)
    (residual, jacobian), (rho, rho_jacobian) = found.image, found.positivity
    curvature = (
        tf.matmul(jacobian, jacobian, transpose_b=True)
        + tf.matmul(rho_jacobian, rho_jacobian, transpose_b=True)
        + tf.eye(tf.shape(u)[0], dtype=u.dtype)
    )
    gradient = tf.linalg.matvec(jacobian, residual) + tf.linalg.matvec(rho_jacobian, rho) + u
    slope = tf.pad(target.seen.beside.volume_slope(u[: target.model.physical_dim]), [[0, target.model.latent_dim]])
    return GaussNewton(curvature, gradient - slope, _objective(residual, rho, u) - 2 * target.log_volume(u))


@gauss_newton.register
def _(target: BandsTarget, u: tf.Tensor) -> GaussNewton:
    dim = target.model.dim
    curvature, gradient, objective = tf.eye(dim, dtype=u.dtype), u, tf.reduce_sum(u**2)
    for band, each in target.targets.items():
        own = target.model.of_band(band, u)
        system = gauss_newton(each, own)
        # The prior counts once, not in every band.
        likelihood = system.curvature - tf.eye(tf.shape(own)[0], dtype=u.dtype)
        curvature += tf.transpose(target.spread(band, tf.transpose(target.spread(band, likelihood))))
        gradient += target.spread(band, system.gradient - own)
        objective += system.objective - tf.reduce_sum(own**2)
    return GaussNewton(curvature, gradient, objective)


def _solution_tangents(
    design: tf.Tensor, tangents: tf.Tensor, solution: LinearSolution, shift: tf.Tensor, prior_scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """How the solution of the normal equations moves with the design: tangents of the mean, and of log sigma,
    `[dim, components]` each. The small matrices are in float64, as in `tflens.linear`."""
    dtype = design.dtype
    overlap, covariance, mean, projected = (
        tf.cast(value, tf.float64)
        for value in (
            tf.einsum("kcp,dp->kcd", tangents, design),
            solution.covariance,
            solution.mean,
            tf.einsum("kcp,p->kc", tangents, solution.residual) - tf.einsum("kp,cp->kc", shift, design),
        )
    )
    # The amplitudes' prior is in units of the design's norm, so it moves too.
    prior = 2 * tf.linalg.diag_part(overlap) / prior_scale**2
    mean_tangents = tf.einsum("cd,kd->kc", covariance, projected - prior * mean)
    precision_tangents = overlap + tf.linalg.matrix_transpose(overlap) + tf.linalg.diag(prior)
    variance_tangents = -tf.einsum("ic,kcd,di->ki", covariance, precision_tangents, covariance)
    sigma_tangents = variance_tangents / (2 * tf.linalg.diag_part(covariance))
    return tf.cast(mean_tangents, dtype), tf.cast(sigma_tangents, dtype)


@singledispatch
def least_squares_objective(target: LensTarget, u: tf.Tensor) -> tf.Tensor:
    """|whitened residual|^2 + positivity + |u|^2 for points `[batch, dim]`, less twice the log volume of what is
    forgiven: what Levenberg-Marquardt minimises."""
    solution = target.linear(u)
    rho, _ = positivity_residual(solution, target.model.positive)
    return _objective(solution.residual, rho, u) - 2 * target.log_volume(u)


@least_squares_objective.register
def _(target: BandsTarget, u: tf.Tensor) -> tf.Tensor:
    objective = tf.reduce_sum(u**2, -1)
    for band, each in target.targets.items():
        own = target.model.of_band(band, u)
        objective += least_squares_objective(each, own) - tf.reduce_sum(own**2, -1)
    return objective


def _objective(residual: tf.Tensor, rho: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(residual**2, -1) + tf.reduce_sum(rho**2, -1) + tf.reduce_sum(u**2, -1)
