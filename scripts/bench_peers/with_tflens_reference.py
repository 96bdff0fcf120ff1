"""What the results of all packages are compared with: this package in double precision, by the same code.

Its task "gradient" is the plain likelihood's; "log_prob" the gradient in u that `with_tflens` is timed with.
"""

from with_tflens import image_job, likelihood_job, log_prob_job
from worker import Settings
from workloads import Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    make = {"image": image_job, "gradient": likelihood_job, "log_prob": log_prob_job}[task]
    return {"float64": lambda: make(workload, batch, dtype="float64")}
