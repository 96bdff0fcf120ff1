"""Training data: simulated galaxies, the distribution that they are drawn from, and the pipeline that observes them."""
