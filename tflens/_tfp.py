"""The one place that imports TensorFlow Probability, so that its version is changed in one file.

TFP is used as stateless mathematics (distributions, bijectors, MCMC kernels); networks are Keras 3.
"""

import warnings

with warnings.catch_warnings():
    # TFP 0.25 predates the deprecations of today's NumPy and setuptools; it loads its parts on first access.
    warnings.simplefilter("ignore")
    import tensorflow_probability as tfp

    tfb = tfp.bijectors
    tfd = tfp.distributions
    mcmc = tfp.mcmc
    tfb.Identity, tfd.Normal, mcmc.HamiltonianMonteCarlo  # noqa: B018 (the access is what loads them)

__all__ = ["mcmc", "tfb", "tfd", "tfp"]
