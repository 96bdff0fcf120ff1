"""The neural galaxy: a variational autoencoder with an inverse autoregressive flow as its prior.

Example:
    >>> from tflens.galaxies import load_galaxy_model
    >>> model = load_galaxy_model()
    >>> galaxy = model.sample_prior(1, seed=0)[0]
    >>> galaxy.shape == (model.stamp_size, model.stamp_size)
    True
"""

from tflens.galaxies.neural_source import NeuralSource
from tflens.galaxies.source import GalaxyModel, load_galaxy_model

__all__ = ["GalaxyModel", "NeuralSource", "load_galaxy_model"]
