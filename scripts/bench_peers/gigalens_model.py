"""What both backends of GIGA-Lens share: the order of its parameters, and what it cannot do."""

from typing import Any

from worker import Unsupported
from workloads import Workload


def check(workload: Workload) -> None:
    """Raises `Unsupported` for what GIGA-Lens 2.0 does not have."""
    if workload.source != "Sersic":
        raise Unsupported("GIGA-Lens 2.0 has no pixelated source")


def arguments(workload: Workload, inputs: Any) -> list[list[dict[str, Any]]]:
    """Parameters `[batch, names]` as its simulator takes them: lens, then source."""
    values = {name: inputs[:, i] for i, name in enumerate(workload.names)}
    mass = [name for name in workload.names if name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")]
    source = {"R_sersic": "R_sersic", "n_sersic": "n_sersic", "e1": "source_e1", "e2": "source_e2"}
    source |= {"center_x": "source_x", "center_y": "source_y", "Ie": "amp"}
    shear = {name: values[name] for name in ("gamma1", "gamma2")}
    return [[{name: values[name] for name in mass}, shear], [{name: values[of] for name, of in source.items()}]]
