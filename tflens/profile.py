"""What mass and light profiles share: declared parameters, and a configuration that rebuilds them."""

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import keras
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.parameters import Parameter

AnyProfile = TypeVar("AnyProfile", bound="Profile")


class Profile:
    """A named set of parameters with functions of the sky coordinates over them.

    Subclasses declare `parameters`; keyword arguments of their constructor are static settings (never fitted).
    Parameters have shape `[...batch]`, coordinates any shape that broadcasts against `[...batch, ny, nx]`.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Keras saves and loads any profile by this name, wherever it was defined; mass and light may share names.
        package = cls.__module__.rpartition(".")[0] or cls.__module__
        keras.saving.register_keras_serializable(package)(cls)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Flat names of the parameters, in the order of declaration."""
        return tuple(name for parameter in self.parameters for name in parameter.names)

    def inputs(self, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The keyword arguments of the profile's functions, from the values of its declared `parameters`."""
        return dict(values)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Profile":
        """Rebuilds a profile from `get_config`."""
        return cls(**config)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"


def pack(profile: Profile) -> dict[str, Any]:
    """A profile as Keras writes it down: its class and its `get_config`, from which `unpack` rebuilds it.

    Example:
        >>> from tflens.mass import SIE
        >>> packed = pack(SIE(tolerance=1e-4))
        >>> packed["registered_name"], packed["config"]["tolerance"]
        ('tflens.mass>SIE', 0.0001)
    """
    return keras.saving.serialize_keras_object(profile)


def unpack(profile: AnyProfile | Mapping[str, Any], kind: type[AnyProfile], name: str) -> AnyProfile:
    """A profile from what `pack` made of it; a profile itself is returned as it is.

    Args:
        profile: the profile, or its configuration (which may have been through JSON).
        kind: the class it must be of.
        name: what it is to the caller, for the message of an error, such as "Subhalos.halo".

    Raises:
        ParameterError: it is of another kind; or Keras does not know its class, since the module that defines it has
            not been imported.

    Example:
        >>> from tflens.mass import SIE, MassProfile
        >>> unpack(pack(SIE(tolerance=1e-4)), MassProfile, "lens")
        SIE(max_ellipticity=0.6, tolerance=0.0001)
    """
    if isinstance(profile, Mapping):
        profile = _registered(profile, name).from_config(profile["config"])
    if not isinstance(profile, kind):
        raise ParameterError(f"{name} must be a {kind.__name__} or the configuration of one, got {profile!r}")
    return profile


def on_pixels(*values: tf.Tensor | float, like: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Appends the two pixel axes to parameters: `[...batch]` -> `[...batch, 1, 1]`.

    Plain numbers take the type of the first tensor among the parameters and `like`, the coordinates.
    """
    dtype = next((value.dtype for value in (*values, like) if tf.is_tensor(value)), None)
    return tuple(tf.convert_to_tensor(value, dtype_hint=dtype)[..., None, None] for value in values)


def elliptical(
    x: tf.Tensor, y: tf.Tensor, e1: tf.Tensor, e2: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Elliptical coordinates that are smooth through the round case.

    With w = x + iy and e = e1 + i e2: v = w - e conj(w), and the intermediate-axis elliptical radius is
    R^2 = q x'^2 + y'^2 / q = |v|^2 / (1 - |e|^2); no axis ratio or angle is ever formed.

    Returns:
        Real and imaginary part of v, |v|^2, and 1 - |e|^2.
    """
    real = x - (e1 * x + e2 * y)
    imag = y - (e2 * x - e1 * y)
    return real, imag, real**2 + imag**2, 1 - (e1**2 + e2**2)


def _registered(config: Mapping[str, Any], name: str) -> type[Profile]:
    # A profile is known to Keras once its module is imported; ours are found without the user doing so.
    if str(config.get("module")).startswith("tflens."):
        importlib.import_module(config["module"])
    found = keras.saving.get_registered_object(config.get("registered_name"))
    if not (isinstance(found, type) and issubclass(found, Profile)):
        raise ParameterError(
            f"{name}: unknown profile {config.get('class_name', config)!r} in its configuration; one of your own must "
            "be imported before"
        )
    return found
