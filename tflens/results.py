"""The output folder of a fit, read back: what its files say, without the fit."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.wcs import WCS, FITSFixedWarning

from tflens.errors import ParameterError
from tflens.parsing import parse_json

if TYPE_CHECKING:
    from tflens.critical import Curves
    from tflens.inference.check import Finding
    from tflens.inference.posterior import Posterior

NEEDED = ("posterior.nc", "summary.json", "config.json", "best.fits")

Extent = tuple[float, float, float, float]


@dataclass(frozen=True)
class Results:
    """What a fit left behind.

    Attributes:
        folder: where.
        summary, config: content of `summary.json` and `config.json`.
        posterior: the draws.
        images: `[ny, nx]` by name. Of the frame: `data`, `noise` (counts/s per pixel), `mask` (True = used), `model`,
            `lens_light`, `arcs`, `residual` of the best model, `model_std` over the posterior, and `magnification`
            where `curves.fits` is there; of the source plane: `source`, `source_std` (counts/s/arcsec^2).
        extent, source_extent: outer edges (left, right, bottom, top) of the two, arcsec.
        wcs: celestial coordinates of the frame, if the image has any.
        curves: critical curves and caustics of the best model, where `curves.fits` is there.
    """

    folder: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    posterior: "Posterior"
    images: dict[str, np.ndarray]
    extent: Extent
    source_extent: Extent
    wcs: WCS | None
    curves: "tuple[Curves, Curves] | None"

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """Reads an output folder of `tflens fit`.

        Raises:
            ParameterError: a file that is needed is missing or cannot be read.
        """
        folder = Path(folder)
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            raise ParameterError(
                f"{folder}: must be the output folder of a fit, but it has no {', '.join(missing)}. Give the folder "
                "that `tflens fit --out` wrote."
            )
        name = NEEDED[0]
        try:
            from tflens.inference.posterior import Posterior

            posterior = Posterior.load(folder / name)
            name = "summary.json"
            summary = _table((folder / name).read_text())
            name = "config.json"
            config = _table((folder / name).read_text())
            name = "best.fits"
            images, wcs = _best(folder / name)
            curves = None
            if (folder / "curves.fits").is_file():
                from tflens.curves_file import read_curves

                name = "curves.fits"
                images["magnification"], *both = read_curves(folder / name)
                curves = (both[0], both[1])
            name = "posterior.nc"
            more, extent, source_extent = _of_posterior(posterior)
        except ParameterError:
            raise  # it names the file already
        except (OSError, ValueError, KeyError, AttributeError, IndexError, TypeError, VerifyError) as error:
            raise ParameterError(
                f"{folder / name}: cannot be read as a result of a fit ({type(error).__name__}: {error}). Fit again."
            ) from error
        return cls(folder, summary, config, posterior, images | more, extent, source_extent, wcs, curves)

    @property
    def name(self) -> str:
        """Of the lens."""
        return str(self.summary.get("name") or "")

    def findings(self) -> "list[Finding]":
        """What the checks found at the end of the fit."""
        from tflens.inference.check import Finding

        return [Finding(**found) for found in self.summary.get("check", [])]


def _table(text: str) -> dict[str, Any]:
    content = parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("it must be a table of names and values")
    return content


def _best(path: Path) -> tuple[dict[str, np.ndarray], WCS | None]:
    names = {"MODEL": "model", "LENS_LIGHT": "lens_light", "LENSED_SOURCE": "arcs", "RESIDUAL": "residual"}
    with fits.open(path) as hdus:
        images = {name: hdus[extension].data.astype(np.float64) for extension, name in names.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(hdus["MODEL"].header)
    return images, wcs if wcs.has_celestial else None


def _of_posterior(posterior: "Posterior") -> tuple[dict[str, np.ndarray], Extent, Extent]:
    seen, mean = posterior.data.observed_data, posterior.data.predictions

    def one(name: str) -> np.ndarray:
        values = mean[name].to_numpy().astype(np.float64)
        return values.reshape(values.shape[-2:])

    images = {
        "data": seen["image"].to_numpy().astype(np.float64),
        "noise": seen["noise"].to_numpy().astype(np.float64),
        "mask": seen["mask"].to_numpy().astype(bool),
        "model_std": one("model_std"),
        "source": one("source_mean"),
        "source_std": one("source_std"),
    }
    return images, _extent(seen, ""), _extent(mean, "_source")


def _extent(data: Any, suffix: str) -> Extent:
    edges: list[float] = []
    for axis in "xy":
        places = data[axis + suffix].to_numpy()
        half = float(places[-1] - places[0]) / (len(places) - 1) / 2
        edges += [float(places[0]) - half, float(places[-1]) + half]
    return (edges[0], edges[1], edges[2], edges[3])
