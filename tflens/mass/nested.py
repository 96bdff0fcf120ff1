"""What profiles that hold other profiles share: their configuration."""

from typing import Any

from tflens.errors import ParameterError
from tflens.mass.base import MassProfile


def pack(profile: MassProfile) -> dict[str, Any]:
    """A profile's name and constructor arguments, from which `unpack` rebuilds it."""
    return {"profile": type(profile).__name__, **profile.get_config()}


def unpack(profile: MassProfile | dict[str, Any]) -> MassProfile:
    """A profile from what `pack` made of it; a profile itself is returned as it is.

    Raises:
        ParameterError: `tflens.mass` has no profile of that name, or it is no mass profile at all.
    """
    if isinstance(profile, MassProfile):
        return profile
    # Here, for the package imports the files that import this one.
    from tflens import mass

    name = profile.get("profile") if isinstance(profile, dict) else None
    kind = getattr(mass, name, None) if name in mass.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, MassProfile)):
        raise ParameterError(f"expected a mass profile, or the configuration of one, got {profile!r}")
    return kind.from_config({key: value for key, value in profile.items() if key != "profile"})
