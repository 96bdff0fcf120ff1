"""GIGA-Lens on TensorFlow, as it is written (`tf.function`), and compiled by XLA besides."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from gigalens.model import PhysicalModel
from gigalens.simulator import SimulatorConfig
from gigalens.tf.profiles.light.sersic import SersicEllipse
from gigalens.tf.profiles.mass.epl import EPL
from gigalens.tf.profiles.mass.shear import Shear
from gigalens.tf.profiles.mass.sie import SIE
from gigalens.tf.simulator import LensSimulator
from gigalens_model import arguments, check
from worker import Job, Settings
from workloads import PIXEL_SCALE, PIXELS, Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    check(workload)
    return {
        "tf.function": lambda: _job(workload, task, batch, xla=False),
        "XLA": lambda: _job(workload, task, batch, xla=True),
    }


def _job(workload: Workload, task: str, batch: int, xla: bool) -> Job:
    model = PhysicalModel([EPL() if workload.lens == "EPL" else SIE(), Shear()], [], [SersicEllipse()])
    config = SimulatorConfig(PIXEL_SCALE, PIXELS, workload.supersampling, workload.kernel.astype(np.float32))
    simulator = LensSimulator(model, config, batch)
    data, noise = tf.constant(workload.data, tf.float32), tf.constant(workload.noise, tf.float32)
    inputs = tf.constant(workload.parameters(batch), tf.float32)

    def images(inputs: tf.Tensor) -> tf.Tensor:
        return tf.reshape(simulator.simulate(arguments(workload, inputs)), (batch, PIXELS, PIXELS))

    def gradient(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = -0.5 * tf.reduce_sum(((images(inputs) - data) / noise) ** 2, (1, 2))
        return value, tape.gradient(value, inputs)

    function = tf.function(images if task == "image" else gradient, jit_compile=xla)
    if task == "image":
        return Job(lambda: function(inputs).numpy())
    return Job(lambda: function(inputs)[1].numpy())
