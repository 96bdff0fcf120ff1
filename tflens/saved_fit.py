"""A fit that was written to a folder, read again: its model, its best point, its draws."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tflens import light, mass
from tflens.config import RunConfig
from tflens.errors import ParameterError
from tflens.galaxies import NeuralSource
from tflens.inference.posterior import Posterior
from tflens.model import LensModel
from tflens.observation import Observation
from tflens.profile import Profile
from tflens.psf_error import PSFError
from tflens.scene import Scene


@dataclass(frozen=True)
class SavedFit:
    """The output folder of `tflens fit`.

    Args:
        folder: of the fit.

    Raises:
        ParameterError: the folder lacks a file of a fit, or one cannot be read.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        for name in ("config.json", "summary.json", "posterior.nc"):
            if not (self.folder / name).is_file():
                raise ParameterError(
                    f"{self.folder}: {name} is missing. Give the output folder of a finished `tflens fit`."
                )

    @cached_property
    def config(self) -> RunConfig:
        """What determined the run."""
        return RunConfig.load(self.folder / "config.json")

    @cached_property
    def posterior(self) -> Posterior:
        """The draws."""
        return Posterior.load(self.folder / "posterior.nc")

    @cached_property
    def model(self) -> LensModel:
        """The model, with the default priors of its profiles: what was fixed is fixed, what was tied is tied."""
        try:
            return model_of_description(self.config.recorded["model"])
        except KeyError as error:
            raise ParameterError(f"{self.folder / 'config.json'}: the model is not recorded ({error})") from None

    @property
    def has_best(self) -> bool:
        """Whether the best point was kept (since version 0.2); if not, the best draw stands for it."""
        return "best" in self._summary

    @cached_property
    def best(self) -> Scene:
        """The best point; of a fit that did not keep it, the draw of the highest posterior density."""
        model, found = self.model, self._summary.get("best")
        if found is not None:
            values, latents = found["parameters"], np.array(found["latents"])
        else:
            drawn = self.posterior
            place = int(drawn.data.sample_stats["lp"].to_numpy().reshape(-1).argmax())
            values = {name: float(drawn.draws(name)[place]) for name in drawn.names}
            u = drawn.data.posterior["u"].to_numpy()
            latents = u.reshape(-1, u.shape[-1])[place, model.physical_dim :]
        u = np.concatenate([np.zeros(model.physical_dim), latents])
        images = tuple(image[0].numpy() for image in model.source_images(_point(u, model.dtype)))
        return Scene(model, values, images)

    def observation(self, file: str | Path | None = None) -> Observation:
        """What was fitted: the data, with the mask that the fit ended with.

        Args:
            file: where the input is now, if it has been moved.

        Raises:
            ObservationError: the input is missing, or is not the same file any more.
        """
        config = self.config if file is None else self.config.with_file(str(file))
        observation = config.input.read()
        data = self.posterior.data.observed_data
        used = np.zeros(observation.image.shape, bool)
        x, y = (data[axis].to_numpy() for axis in "xy")
        grid_x, grid_y = observation.grid.coordinates()
        column, row = int(np.abs(grid_x[0] - x[0]).argmin()), int(np.abs(grid_y[:, 0] - y[0]).argmin())
        used[row : row + len(y), column : column + len(x)] = data["mask"].to_numpy().reshape(len(y), len(x)) > 0
        return observation.with_mask(used)

    @cached_property
    def _summary(self) -> dict[str, Any]:
        path = self.folder / "summary.json"
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ParameterError(f"{path}: must be readable JSON, but {error}") from None


def model_of_description(description: Mapping[str, Any]) -> LensModel:
    """The model that `tflens.run.describe_model` described, with default priors for what is neither fixed nor tied.

    Raises:
        ParameterError: a profile is unknown.
    """
    groups: dict[str, list[Profile]] = {"lens": [], "light": [], "source": [], "psf": []}
    galaxies = description.get("galaxies", [])
    galaxies = list(galaxies) if isinstance(galaxies, list) else [galaxies]
    for label, settings in description["components"].items():
        role = label.rstrip("0123456789")
        settings = dict(settings)
        name = settings.pop("profile")
        if name == "NeuralSource":
            # The weights that were used, not the newest.
            settings["version"] = galaxies.pop(0)["version"]
        groups["lens" if role == "shear" else role].append(_profile(name, settings))
    fixed = _joined(groups, description["fixed"])
    tied = {name: _together(others) for name, others in _joined(groups, description["tied"]).items()}
    return LensModel(
        groups["lens"],
        groups["light"],
        groups["source"],
        priors={**{name: values for name, values in fixed.items()}, **tied},
        sky=description["sky"],
        psf_error=groups["psf"][0] if groups["psf"] else None,
        dtype=description["dtype"],
    )


def _profile(name: str, settings: dict[str, Any]) -> Profile:
    for known in ({"NeuralSource": NeuralSource, "PSFError": PSFError}, vars(mass), vars(light)):
        if name in known:
            return known[name].from_config(settings)
    raise ParameterError(f"the fit has a profile {name!r}, which is not one of tflens")


def _joined(groups: Mapping[str, list[Profile]], values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values by the names under which `LensModel` takes priors: those of joint parameters together."""
    joint = [p.names for profiles in groups.values() for each in profiles for p in each.parameters if len(p.names) > 1]
    found: dict[str, list[Any]] = {}
    for full, value in values.items():
        label, _, name = full.rpartition(".")
        names = next((those for those in joint if name in those), (name,))
        found.setdefault(f"{label}.{','.join(names)}", []).append(value)
    return found


def _together(names: list[str]) -> str:
    """`["light1.e1", "light1.e2"]` as "light1.e1,e2"."""
    label = names[0].rpartition(".")[0]
    return f"{label}.{','.join(name.rpartition('.')[2] for name in names)}"


def _point(u: np.ndarray, dtype: str) -> Any:
    import tensorflow as tf

    return tf.constant(u[None], dtype)
