"""What several commands let choose from."""

from enum import StrEnum


class Source(StrEnum):
    """What the lensed galaxy may be."""

    neural = "neural"
    sersic = "sersic"


class Start(StrEnum):
    """Where a search begins, by its name in `FitSettings`."""

    broad = "broad"
    network = "network"


class Sampler(StrEnum):
    """The way from the best fit to the posterior, by its name in `FitSettings`."""

    hmc = "hmc"
    nuts = "nuts"
    smc = "smc"
    vi_gaussian = "vi-gaussian"
    vi_iaf = "vi-iaf"


class Engine(StrEnum):
    """Who runs many fits."""

    local = "local"
    ray = "ray"
