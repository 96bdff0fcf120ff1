"""GIGA-Lens on JAX: its simulator takes the whole batch, with the batch as last axis of its arrays."""

import jax
import jax.numpy as jnp
import numpy as np
from gigalens.jax.profiles.light.sersic import SersicEllipse
from gigalens.jax.profiles.mass.epl import EPL
from gigalens.jax.profiles.mass.shear import Shear
from gigalens.jax.profiles.mass.sie import SIE
from gigalens.jax.simulator import LensSimulator
from gigalens.model import PhysicalModel
from gigalens.simulator import SimulatorConfig
from gigalens_model import arguments, check
from worker import Job, Settings
from workloads import PIXEL_SCALE, PIXELS, Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    check(workload)
    return {"conv": lambda: _job(workload, task, batch)}


def _job(workload: Workload, task: str, batch: int) -> Job:
    model = PhysicalModel([EPL() if workload.lens == "EPL" else SIE(), Shear()], [], [SersicEllipse()])
    config = SimulatorConfig(PIXEL_SCALE, PIXELS, workload.supersampling, workload.kernel.astype(np.float32))
    simulator = LensSimulator(model, config, batch)
    data, noise = jnp.asarray(workload.data, jnp.float32), jnp.asarray(workload.noise, jnp.float32)
    inputs = jnp.asarray(workload.parameters(batch), jnp.float32)

    def images(inputs: jax.Array) -> jax.Array:
        return jnp.reshape(simulator.simulate(arguments(workload, inputs)), (batch, PIXELS, PIXELS))

    def log_likelihood(inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        each = -0.5 * jnp.sum(((images(inputs) - data) / noise) ** 2, (1, 2))
        return jnp.sum(each), each

    if task == "image":
        function = jax.jit(images)
        return Job(lambda: jax.block_until_ready(function(inputs)))
    function = jax.jit(jax.value_and_grad(log_likelihood, has_aux=True))
    return Job(lambda: jax.block_until_ready(function(inputs)), lambda result: np.asarray(result[1]))
