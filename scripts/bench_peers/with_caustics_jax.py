"""caustics on its JAX backend."""

import os

os.environ["CASKADE_BACKEND"] = "jax"  # read when caustics is imported

import jax_jobs
from caustics_images import images
from worker import Settings
from workloads import Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    # Its direct convolution is ten times slower in JAX on a processor.
    return jax_jobs.settings(images(workload, ("fft",)), workload, task, batch)
