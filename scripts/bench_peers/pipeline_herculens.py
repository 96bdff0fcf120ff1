"""herculens: its images under NUTS (numpyro), from an optimum found by Adam, as its notebooks do it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from numpyro.infer import MCMC, NUTS
from pipeline import NAMES, START, Clock, Problem, Result, log_amplitude_prior, physical
from with_herculens import images
from workloads import PIXELS, Workload

CHAINS, WARMUP, DRAWS = 4, 300, 500
ADAM_STEPS, ADAM_STARTS, RATE = 500, 8, 0.03


def log_density(problem: Problem):
    """The log posterior of base-space values u `[15]`, the last of them the log amplitude's."""
    blank = np.ones((PIXELS, PIXELS))
    workload = Workload("EPL", "Sersic", "gaussian", 1, problem.kernel, blank, blank)
    found = images(workload)
    image = found["real, FFT"]
    data = jnp.asarray(problem.image, jnp.float32)

    def model(u):
        return image(physical(u, exp=jnp.exp), None)

    def density(u):
        seen = model(u)
        signal = jnp.sqrt(jnp.sum(seen**2))
        prior = -0.5 * jnp.sum(u[:-1] ** 2) + log_amplitude_prior(signal, problem.scale, jnp.log)
        return prior - 0.5 * jnp.sum((data - seen) ** 2)

    return density, model


def starts(seed: int, count: int) -> jax.Array:
    """Points `[count, 15]` around the prior's middle."""
    drawn = START * np.random.default_rng([seed, 0]).standard_normal((count, len(NAMES)))
    return jnp.asarray(drawn, jnp.float32)


def adam(density, begin: jax.Array, steps: int, rate: float) -> tuple[jax.Array, jax.Array]:
    """End points and their log densities, best first."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    @jax.vmap
    def climb(u):
        def step(carry, _):
            u, state = carry
            slope = jnp.nan_to_num(jax.grad(density)(u))
            update, state = optimizer.update(-slope, state)
            return (u + update, state), None

        (u, _), _ = jax.lax.scan(step, (u, optimizer.init(u)), None, length=steps)
        return u, density(u)

    u, value = climb(begin)
    order = jnp.argsort(-jnp.nan_to_num(value, nan=-jnp.inf))
    return u[order], value[order]


def draw(kernel, begin: jax.Array, warmup: int, draws: int, seed: int) -> MCMC:
    """Chains of a numpyro kernel, side by side in one program."""
    side_by_side = {"num_chains": len(begin), "chain_method": "vectorized", "progress_bar": False}
    sampler = MCMC(kernel, num_warmup=warmup, num_samples=draws, **side_by_side)
    sampler.run(jax.random.PRNGKey(seed), init_params=begin, extra_fields=("num_steps",))
    return sampler


def to_physical(chains: np.ndarray) -> np.ndarray:
    """`[chains, draws, 15]` in the order of `NAMES`."""
    values = physical(np.moveaxis(np.asarray(chains, np.float64), -1, 0))
    return np.stack([values[name] for name in NAMES], -1)


def run(problem: Problem, seed: int, clock: Clock) -> Result:
    """Image to posterior."""
    numpyro.enable_x64(False)
    density, _ = log_density(problem)
    clock.lap("import")
    found, _ = adam(density, starts(seed, ADAM_STARTS), ADAM_STEPS, RATE)
    jax.block_until_ready(found)
    clock.lap("search")
    kernel = NUTS(potential_fn=lambda u: -density(u), dense_mass=True)
    begin = found[0] + 0.01 * jax.random.normal(jax.random.PRNGKey(seed), (CHAINS, len(NAMES)))
    sampler = draw(kernel, begin, WARMUP, DRAWS, seed)
    chains = np.asarray(sampler.get_samples(group_by_chain=True))
    clock.lap("sample")
    kept = int(np.sum(np.asarray(sampler.get_extra_fields()["num_steps"])))
    share = DRAWS / (WARMUP + DRAWS)
    words = f"{ADAM_STARTS} starts x {ADAM_STEPS} Adam steps, NUTS, dense mass, {CHAINS} chains x ({WARMUP} + {DRAWS})"
    gradients = ADAM_STARTS * ADAM_STEPS + int(kept / share)
    return Result(to_physical(chains), clock.stages, share, gradients, 0, words)
