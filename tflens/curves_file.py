"""`curves.fits` of a fit: magnification over the image, critical curves and caustics of the best model."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from astropy.io import fits

from tflens.critical import Curves, caustics, critical_curves, magnification
from tflens.errors import ParameterError

_CELLS = 240  # along the frame's longer side, to find the curves by
_ACCURACY = 1e-6  # arcsec: far below what is seen, and a few steps of Newton's method instead of many
_WIDENINGS = (1.0, 1.5, 2.5, 4.0)  # of the frame, until the curves close inside


def curves_fits(fit: Any) -> fits.HDUList:
    """Signed magnification at the pixels of the frame (MAGNIFICATION), and points of the curves of the best model.

    The table CURVES has a row for each point: `kind` (tangential or radial), `curve` (its number; points of one number
    follow each other and close), `x`, `y` on the critical curve and `beta_x`, `beta_y` on its caustic, arcsec. It is
    empty if there are none, or if they leave four times the frame.

    Args:
        fit: a `tflens.inference.pipeline.Fit`.
    """
    values = {name: tf.cast(value, tf.float64) for name, value in fit.model.physical(fit.optimum.u[0]).items()}
    deflection = fit.model.total_mass(values).deflection
    grid = fit.target.grid
    x, y = (tf.constant(axis) for axis in grid.coordinates())
    with np.errstate(divide="ignore", invalid="ignore"):
        map_ = magnification(deflection, x, y).numpy()
    header = fits.Header()
    header["PIXSCALE"] = (grid.pixel_scale, "arcsec/pixel")
    header["XCENTER"], header["YCENTER"] = (round(value, 9) for value in grid.center)
    image = fits.ImageHDU(map_.astype(np.float32), header, "MAGNIFICATION")
    rows = _rows(deflection, _critical_curves(deflection, grid.extent))
    columns = [
        fits.Column("kind", "10A", array=np.array([row[0] for row in rows], "U10")),
        fits.Column("curve", "J", array=np.array([row[1] for row in rows], np.int32)),
        *(
            fits.Column(name, "D", unit="arcsec", array=np.array([row[i] for row in rows], np.float64))
            for i, name in enumerate(("x", "y", "beta_x", "beta_y"), start=2)
        ),
    ]
    return fits.HDUList([fits.PrimaryHDU(), image, fits.BinTableHDU.from_columns(columns, name="CURVES")])


def read_curves(path: str | Path) -> tuple[np.ndarray, Curves, Curves]:
    """Magnification `[ny, nx]`, critical curves and caustics, as `curves_fits` gave them."""
    with fits.open(path) as hdus:
        map_ = hdus["MAGNIFICATION"].data.astype(np.float64)
        table = hdus["CURVES"].data
        kinds, numbers = np.char.strip(table["kind"].astype(str)), table["curve"]
        critical, source = (np.stack([table[a], table[b]], -1) for a, b in (("x", "y"), ("beta_x", "beta_y")))
    found = []
    for points in (critical, source):
        by_kind = (
            [points[(kinds == kind) & (numbers == n)] for n in np.unique(numbers[kinds == kind])]
            for kind in Curves._fields
        )
        found.append(Curves(*by_kind))
    return map_, *found


def _critical_curves(deflection: Any, extent: tuple[float, float, float, float]) -> Curves:
    left, right, bottom, top = extent
    middle_x, middle_y, half_x, half_y = (left + right) / 2, (bottom + top) / 2, (right - left) / 2, (top - bottom) / 2
    for factor in _WIDENINGS:
        a, b = factor * half_x, factor * half_y
        window = (middle_x - a, middle_x + a, middle_y - b, middle_y + b)
        try:
            return critical_curves(deflection, window, step=2 * max(a, b) / _CELLS, accuracy=_ACCURACY)
        except ParameterError:  # a curve leaves the window
            continue
    return Curves([], [])


def _rows(deflection: Any, curves: Curves) -> list[tuple[Any, ...]]:
    sources = caustics(deflection, curves)
    return [
        (kind, number, *point, *image)
        for kind, lines, behind in zip(Curves._fields, curves, sources, strict=True)
        for number, (line, caustic) in enumerate(zip(lines, behind, strict=True))
        for point, image in zip(line, caustic, strict=True)
    ]
