"""Several lenses side by side in one program."""

import numpy as np
import tensorflow as tf

from tflens.density import Density
from tflens.direct import Direct
from tflens.errors import ParameterError
from tflens.model import LensTarget
from tflens.observation import Observation
from tflens.seen import Forgiven


class LensBatch(Density):
    """The log posteriors of several lenses, whose images have one shape, pixel scale and PSF.

    Points are `[lenses * n, dim]`, n of the first lens, then n of the second, and so on. A device that is fast only if
    it has much to do at once, as a GPU is, so gets it; what is compiled is compiled once for all lenses that follow.

    Args:
        target: of any one of them: it lends its programs.
        lenses: how many.

    Raises:
        ParameterError: `lenses` is no whole number from 1.

    Example:
        >>> from tflens.light import Sersic
        >>> from tflens.model import LensModel
        >>> rng, psf = np.random.default_rng(0), np.ones((1, 1))
        >>> noise = [Observation(rng.normal(size=(8, 10)), np.ones((8, 10)), psf, pixel_scale=0.2) for _ in range(2)]
        >>> target = LensTarget(LensModel(lens_light=[Sersic()], source=Sersic()), noise[0])
        >>> batch = LensBatch(target, 2)
        >>> for lens, observation in enumerate(noise):
        ...     target.observe(observation)
        ...     batch.take(lens)
        >>> batch.log_prob(tf.zeros([6, target.model.dim])).shape  # three points of each
        TensorShape([6])
    """

    def __init__(self, target: LensTarget, lenses: int) -> None:
        if not isinstance(lenses, int) or lenses < 1:
            raise ParameterError(f"LensBatch.lenses must be a whole number from 1, got {lenses!r}")
        super().__init__()
        self.target, self.model, self.lenses = target, target.model, lenses
        self.seen = tf.nest.map_structure(
            lambda each: tf.Variable(tf.zeros([lenses, *each.shape], each.dtype), trainable=False), target.seen
        )
        self._taken: dict[int, tuple[Observation, np.ndarray, Forgiven | None]] = {}
        self._value_and_gradient = Direct(self._tempered, jit_compile=False)

    def take(self, lens: int) -> None:
        """Takes over what the target sees now, its observation, mask and what it forgives, for one of the lenses."""
        tf.nest.map_structure(lambda mine, theirs: mine[lens].assign(theirs), self.seen, self.target.seen)
        self._taken[lens] = self.target.observation, self.target.mask, self.target.discrepancy

    def see(self, lens: int) -> None:
        """Has the target see what was taken over for a lens."""
        observation, mask, discrepancy = self._taken[lens]
        self.target.observe(observation)
        self.target.use(mask)
        self.target.forgive(discrepancy)

    def of(self, lens: tf.Tensor) -> LensTarget:
        """The target of one lens, for use within a compiled program."""
        return self.target.given(self.seen.of(lens))

    def log_likelihood(self, u: tf.Tensor) -> tf.Tensor:
        return self.value_and_gradient(u)[0] - self.log_prior(u)

    def value_and_gradient(self, u: tf.Tensor, power: float | tf.Tensor = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
        return self._value_and_gradient(tf.stop_gradient(u), tf.convert_to_tensor(power, u.dtype))

    def _tempered(self, u: tf.Tensor, power: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.target.tempered(u, power, self.seen, self.lens_of_each(u.shape[0]))
