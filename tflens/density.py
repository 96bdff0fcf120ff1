"""Log posteriors in the base space: what optimisers and samplers ask of them, whatever they are of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf


class Density(ABC):
    """A log posterior of u ~ N(0, I) given data, for batches of u.

    Whoever has another one defines `log_likelihood` and `value_and_gradient`; it needs a `model` too, with the number
    `dim` of its coordinates and their `dtype`.

    Attributes:
        lenses: how many lenses the points of a batch are of, as many of each.
    """

    lenses = 1

    def __init__(self) -> None:
        self._programs: dict[Callable[..., Any], Callable[..., Any]] = {}

    @abstractmethod
    def log_likelihood(self, u: tf.Tensor) -> tf.Tensor:
        """Log marginal likelihood `[batch]`, without the constant of the noise's normalisation."""

    @abstractmethod
    def value_and_gradient(self, u: tf.Tensor, power: float | tf.Tensor = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
        """Log posterior `[batch]` and its gradient `[batch, dim]`, in one compiled program.

        Not differentiable itself.

        Args:
            u: points `[batch, dim]`.
            power: to which the likelihood is raised, a number; below 1 it is tempered.
        """

    def of(self, lens: tf.Tensor) -> "Density":
        """The log posterior of one of several lenses, for use within a compiled program."""
        return self

    def lens_of_each(self, points: int) -> tf.Tensor:
        """Numbers of the lenses that points `[points, dim]` are of."""
        return tf.repeat(tf.range(self.lenses), points // self.lenses)

    def log_prior(self, u: tf.Tensor) -> tf.Tensor:
        """Log prior -|u|^2 / 2, `[batch]`, without its constant."""
        return -0.5 * tf.reduce_sum(u**2, -1)

    def log_prob(self, u: tf.Tensor) -> tf.Tensor:
        """Log posterior `[batch]`, up to a constant; differentiable once.

        Its gradient is computed with it, by `value_and_gradient`: for the value alone, `log_likelihood(u) +
        log_prior(u)` is cheaper.
        """

        @tf.custom_gradient
        def value(u: tf.Tensor):
            value, gradient = self.value_and_gradient(u)

            def by_u(upstream: tf.Tensor, variables: Sequence[tf.Variable] = ()):
                # TensorFlow asks for the weights of the source's network too: they are what they are.
                product = upstream[:, None] * gradient
                return (product, [None] * len(variables)) if variables else product

            return value, by_u

        return value(u)

    def program(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function(target, ...)` of this target and tensors, traced once for each shape and kept with the target."""
        if function not in self._programs:
            self._programs[function] = tf.function(partial(function, self), autograph=False)
        return self._programs[function]
