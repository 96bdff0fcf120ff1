"""herculens, its lenses one after the other in one compiled loop: not in its documentation, but open to its users."""

import jax_jobs
from with_herculens import images
from worker import Settings, Unsupported
from workloads import Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    if batch == 1:
        raise Unsupported("the same as vmap for a single lens")
    return jax_jobs.settings(images(workload), workload, task, batch, jax_jobs.one_by_one)
