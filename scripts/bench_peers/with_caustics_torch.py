"""caustics on its PyTorch backend: `torch.func` over single lenses."""

import os

os.environ["CASKADE_BACKEND"] = "torch"  # read when caustics is imported

from collections.abc import Callable

import torch
from caustics_images import images
from worker import Job, Settings
from workloads import Workload

torch.set_num_threads(len(os.sched_getaffinity(0)))


def settings(workload: Workload, task: str, batch: int) -> Settings:
    return {
        name: lambda image=image: _job(image, workload, task, batch)
        for name, image in images(workload, ("fft", "conv2d")).items()
    }


def _job(image: Callable, workload: Workload, task: str, batch: int) -> Job:
    data, noise = (torch.tensor(value, dtype=torch.float32) for value in (workload.data, workload.noise))
    inputs = [torch.tensor(workload.parameters(batch), dtype=torch.float32)]
    pixels = workload.pixels(batch)
    if pixels is not None:
        inputs.append(torch.tensor(pixels))

    def model(parameters: torch.Tensor, pixels: torch.Tensor | None = None) -> torch.Tensor:
        return image(dict(zip(workload.names, parameters, strict=True)), pixels)

    def log_likelihood(*inputs: torch.Tensor) -> torch.Tensor:
        return -0.5 * torch.sum(((model(*inputs) - data) / noise) ** 2)

    if task == "image":
        function = torch.func.vmap(model)

        def run() -> torch.Tensor:
            with torch.no_grad():
                return function(*inputs)

        return Job(run, lambda result: result.numpy())
    function = torch.func.vmap(torch.func.grad_and_value(log_likelihood, argnums=tuple(range(len(inputs)))))
    return Job(
        lambda: function(*inputs),
        lambda result: torch.cat([part.reshape(batch, -1) for part in result[0]], 1).numpy(),
    )
