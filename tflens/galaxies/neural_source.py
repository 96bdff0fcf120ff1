"""The neural galaxy as the source of a lens."""

from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.galaxies.source import GalaxyModel, load_galaxy_model
from tflens.light.pixelated import CenteredPixels
from tflens.parameters import Parameter, log_normal, normal


class NeuralSource(CenteredPixels):
    """A galaxy drawn by a trained decoder, placed behind the lens.

    Its image is a function of base-space latents u ~ N(0, I), carried by the flow to the decoder's latent space; its
    position and size are ordinary parameters. The network draws galaxies at the angular size they have in its
    training set, so `scale` has a narrow prior around 1: the latents draw small and large galaxies, and a scale
    that could do the same leaves a fit with two ways of saying one thing, and often with two modes.

    For the same reason its centre is that of the light it draws, not that of the decoder's stamp (`CenteredPixels`).

    Args:
        name: of a shipped model or a path, as `tflens.galaxies.load_galaxy_model` takes it.
        version: of the model, the newest by default.
        prior: "flow" (default), or "normal", which takes u for the decoder's latents: N(0, I) instead of what the
            galaxies are, to see what the flow is worth.
        interpolation: between the pixels that the network draws, see `tflens.light.Pixelated`. Chains cannot follow
            the gradient of a "bilinear" galaxy: it jumps wherever a ray crosses the centre of a pixel.

    Raises:
        ParameterError: `prior` is neither of the two, or `interpolation` is unknown.
        SavedModelError: there is no such model, or it cannot be loaded.

    Example:
        >>> import tensorflow as tf
        >>> source = NeuralSource()
        >>> image = source.image(tf.zeros([1, source.latent_dim]))
        >>> round(float(tf.reduce_sum(image)), 3)
        1.0
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("center_x",), "arcsec", "centre of the light", normal(0.0, 0.3)),
        Parameter(("center_y",), "arcsec", "centre of the light", normal(0.0, 0.3)),
        Parameter(("scale",), "", "angular size relative to the training galaxies", log_normal(1.0, 0.1)),
    )

    def __init__(
        self,
        name: str | Path = "galaxies",
        version: int | str | None = None,
        prior: str = "flow",
        interpolation: str = "quadratic",
    ) -> None:
        if prior not in ("flow", "normal"):
            raise ParameterError(f'NeuralSource.prior must be "flow" or "normal", got {prior!r}')
        self.name, self.version, self.prior = name, version, prior
        self.galaxies: GalaxyModel = load_galaxy_model(name, version)
        super().__init__(self.galaxies.pixel_scale, interpolation)

    @property
    def latent_dim(self) -> int:
        """Number of latents."""
        return self.galaxies.latent_dim

    def image(self, u: tf.Tensor) -> tf.Tensor:
        """Galaxies `[...batch, ny, nx]` of unit flux for base-space latents `[...batch, latent_dim]`."""
        return self.galaxies.generate(u) if self.prior == "flow" else self.galaxies.decoder(u)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": str(self.name),
            "version": self.version,
            "prior": self.prior,
            "interpolation": self.interpolation,
        }
