"""The kinds of networks that a configuration can name."""

from collections.abc import Mapping
from typing import Any

import keras

from tflens.errors import ParameterError
from tflens.galaxies.coupling import CouplingFlow
from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.galaxies.spline import SplineFlow

KINDS: dict[str, dict[str, type[keras.Model]]] = {
    "encoder": {"dcgan": Encoder},
    "decoder": {"dcgan": Decoder},
    "flow": {"iaf": InverseAutoregressiveFlow, "coupling": CouplingFlow, "spline": SplineFlow},
}
"""For each role the networks that can play it; the first is the default."""


def network_class(role: str, config: Mapping[str, Any]) -> type[keras.Model]:
    """The class that `config["kind"]` names.

    Raises:
        ParameterError: there is no such kind.

    Example:
        >>> network_class("flow", {"kind": "spline"}).__name__
        'SplineFlow'
    """
    kinds = KINDS[role]
    kind = config.get("kind", next(iter(kinds)))
    if kind not in kinds:
        raise ParameterError(f"{role}: kind must be one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind]


def make_network(role: str, config: Mapping[str, Any]) -> keras.Model:
    """The network of a configuration, built: `kind`, and the arguments of its class."""
    arguments = {name: value for name, value in config.items() if name != "kind"}
    network = network_class(role, config)(**arguments)
    network.build()
    return network


def describe_network(role: str, network: keras.Model) -> dict[str, Any]:
    """The configuration that `make_network` makes the same network of."""
    kind = next(name for name, kind in KINDS[role].items() if type(network) is kind)
    own = {key: value for key, value in network.get_config().items() if key not in ("name", "trainable", "dtype")}
    return {"kind": kind, **own}
