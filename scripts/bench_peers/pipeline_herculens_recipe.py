"""The control: the recipe of this package on herculens's images, to tell the algorithm from the kernels.

Many starts by Adam, Levenberg-Marquardt, then NUTS in the metric of the Gauss-Newton matrix at the optimum.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS
from pipeline import NAMES, Clock, Problem, Result
from pipeline_herculens import adam, draw, log_density, starts, to_physical

STARTS, ADAM_STEPS, RATE, SURVIVORS, POLISH_STEPS = 48, 240, 0.06, 8, 24
CHAINS, WARMUP, DRAWS = 8, 120, 300


def run(problem: Problem, seed: int, clock: Clock) -> Result:
    """Image to posterior."""
    density, model = log_density(problem)
    clock.lap("import")
    found, _ = adam(density, starts(seed, STARTS), ADAM_STEPS, RATE)
    found = jax.block_until_ready(found[:SURVIVORS])
    clock.lap("search")
    jacobian = jax.jacfwd(model)

    def curvature(u):
        seen = jacobian(u).reshape(-1, len(NAMES))
        return seen.T @ seen + jnp.diag(jnp.ones(len(NAMES)).at[-1].set(1e-3))

    @jax.jit
    def polish(u):
        def step(carry, _):
            u, damping = carry
            matrix, slope = curvature(u), jax.grad(density)(u)
            tried = u + jnp.linalg.solve(matrix + damping * jnp.diag(jnp.diag(matrix)), slope)
            better = density(tried) > density(u)
            return (jnp.where(better, tried, u), jnp.where(better, damping / 10, damping * 10)), None

        (u, _), _ = jax.lax.scan(step, (u, jnp.float32(1e-2)), None, length=POLISH_STEPS)
        return u, density(u)

    ends = [polish(u) for u in found]
    best = max(ends, key=lambda end: float(jnp.nan_to_num(end[1], nan=-jnp.inf)))[0]
    root = jnp.linalg.cholesky(jnp.linalg.inv(jax.jit(curvature)(best)))
    clock.lap("polish")
    # Coordinates in which the posterior is nearly a unit Gaussian: no mass to adapt.
    kernel = NUTS(potential_fn=lambda w: -density(best + root @ w), adapt_mass_matrix=False, target_accept_prob=0.9)
    begin = 0.3 * jax.random.normal(jax.random.PRNGKey(seed), (CHAINS, len(NAMES)))
    sampler = draw(kernel, begin, WARMUP, DRAWS, seed)
    chains = np.asarray(best) + np.asarray(sampler.get_samples(group_by_chain=True)) @ np.asarray(root).T
    clock.lap("sample")
    kept = int(np.sum(np.asarray(sampler.get_extra_fields()["num_steps"])))
    share = DRAWS / (WARMUP + DRAWS)
    words = (
        f"{STARTS} starts x {ADAM_STEPS} Adam steps, {SURVIVORS} polished in {POLISH_STEPS} steps, NUTS in the "
        f"Gauss-Newton metric, {CHAINS} chains x ({WARMUP} + {DRAWS})"
    )
    gradients = STARTS * ADAM_STEPS + int(kept / share)
    return Result(to_physical(chains), clock.stages, share, gradients, SURVIVORS * POLISH_STEPS + 1, words)
