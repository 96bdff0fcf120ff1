"""Jobs of a JAX package: one lens's image function, spread over the batch, differentiated and compiled."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from worker import Job, Settings
from workloads import Workload

# (parameters by name, pixels of the source or None) -> image [ny, nx]
Image = Callable[[dict[str, jax.Array], jax.Array | None], jax.Array]
Spread = Callable[[Callable], Callable]


def one_by_one(function: Callable) -> Callable:
    """Lenses one after the other inside the compiled program: less memory at a time."""
    return lambda inputs: jax.lax.map(function, inputs)


def settings(
    images: dict[str, Image], workload: Workload, task: str, batch: int, spread: Spread = jax.vmap
) -> Settings:
    """`jit(vmap(...))`, or another way to spread over the batch, of every image function."""
    return {name: lambda image=image: _job(image, spread, workload, task, batch) for name, image in images.items()}


def _job(image: Image, spread: Spread, workload: Workload, task: str, batch: int) -> Job:
    names = workload.names
    data, noise = jnp.asarray(workload.data, jnp.float32), jnp.asarray(workload.noise, jnp.float32)
    pixels = workload.pixels(batch)
    inputs = {"parameters": jnp.asarray(workload.parameters(batch), jnp.float32)}
    if pixels is not None:
        inputs["pixels"] = jnp.asarray(pixels)

    def model(inputs: dict[str, jax.Array]) -> jax.Array:
        return image(dict(zip(names, inputs["parameters"], strict=True)), inputs.get("pixels"))

    def log_likelihood(inputs: dict[str, jax.Array]) -> jax.Array:
        return -0.5 * jnp.sum(((model(inputs) - data) / noise) ** 2)

    function = jax.jit(spread(model if task == "image" else jax.value_and_grad(log_likelihood)))

    def read(result: object) -> np.ndarray:
        if task == "image":
            return np.asarray(result)
        return np.concatenate([np.asarray(result[1][name]).reshape(batch, -1) for name in inputs], axis=1)

    return Job(lambda: jax.block_until_ready(function(inputs)), read)
