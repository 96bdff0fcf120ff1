"""The output folder of a fit: what is in it, and how it is written."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS

from tflens import __version__
from tflens.disk import make_writable, storage_cause
from tflens.errors import ParameterError, StorageError
from tflens.files import remove_leftovers, write_atomically
from tflens.grid import PixelGrid
from tflens.plain import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Most precious first: if the disk fills up, the draws are safe.
RESULTS = (
    "posterior.nc",
    "config.json",
    "summary.json",
    "table.csv",
    "best.fits",
    "curves.fits",
    "fit.png",
    "fit.pdf",
    "corner.png",
    "trace.png",
    "report.html",
)
EVENTS = "tensorboard"


def prepare_folder(folder: str | Path, overwrite: bool = False) -> Path:
    """Makes the output folder, or makes sure that it may be written to.

    Nothing in it is touched, but what a run that was killed has left half-written is removed.

    Raises:
        ParameterError: it has content and `overwrite` is False, or it is a file.
        StorageError: it cannot be made, or written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     prepare_folder(parent + "/new").is_dir()
        True
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"{folder}: the output folder must be a folder, but it is a file. Choose another name.")
    make_writable(folder)
    if any(folder.iterdir()) and not overwrite:
        raise ParameterError(
            f"{folder}: the output folder must be empty, but it has content. Choose another name, or allow to "
            "replace the results of an earlier fit (--overwrite)."
        )
    remove_leftovers(folder, RESULTS)
    return folder


def write_results(fit: Any, config: dict[str, Any], folder: Path) -> list[Path]:
    """Writes `RESULTS`, each whole or not at all, after removing those of an earlier fit.

    Args:
        fit: a `tflens.inference.pipeline.Fit`.
        config: content of `config.json`.
        folder: as `prepare_folder` returned it.

    Raises:
        StorageError: a file cannot be written, e.g. on a full disk.
    """
    from tflens.curves_file import curves_fits
    from tflens.plotting import corner_figure, trace_figure
    from tflens.report import report_page
    from tflens.results import Results
    from tflens.style import save

    writers: dict[str, Callable[[Path], Any]] = {
        "posterior.nc": fit.posterior.save,
        "config.json": lambda path: _write_json(path, config),
        "summary.json": lambda path: _write_json(path, summary(fit)),
        "table.csv": lambda path: _write_table(path, fit),
        "best.fits": lambda path: best_images(fit).writeto(path, overwrite=True),
        "curves.fits": lambda path: curves_fits(fit).writeto(path, overwrite=True),
        "fit.png": lambda path: save(_fit_figure(fit, folder), path),
        "fit.pdf": lambda path: save(_fit_figure(fit, folder), path),
        "corner.png": lambda path: save(corner_figure(fit.posterior), path, 100),
        "trace.png": lambda path: save(trace_figure(fit.posterior), path, 100),
        # Of the files before it, so that it can be made again without the fit.
        "report.html": lambda path: path.write_text(report_page(Results.load(folder)), encoding="utf-8"),
    }
    written = []
    try:
        for name in RESULTS:
            (folder / name).unlink(missing_ok=True)
        for name in RESULTS:
            write_atomically(folder / name, writers[name])
            written.append(folder / name)
    except Exception as error:  # HDF5 has errors of its own for a full disk
        if not isinstance(error, OSError) and storage_cause(error) is None:
            raise
        raise StorageError(
            f"{folder}: {name} cannot be written ({getattr(error, 'strerror', None) or error}). "
            f"Written before it: {', '.join(path.name for path in written) or 'nothing'}."
        ) from error
    return written


def summary(fit: Any) -> dict[str, Any]:
    """Results in plain values: every row of the table, the best point, derived quantities, what the checks found,
    diagnostics, seconds of every stage."""
    from tflens.inference.derived import derived

    return {
        "name": fit.observation.name,
        "parameters": {row.name: plain(row) for row in fit.posterior.table()},
        "best": best_point(fit),
        "derived": derived(fit),
        "check": plain(fit.check()),
        "diagnostics": plain(fit.diagnostics()),
        "seconds": plain(fit.seconds),
    }


def best_point(fit: Any) -> dict[str, Any]:
    """The optimum: every parameter and amplitude by name, the base-space latents of the sources (an empty list
    without), and the log posterior."""
    u = fit.optimum.u[0]
    parameters = {name: value.numpy() for name, value in fit.model.physical(u).items()}
    parameters |= dict(zip(fit.model.amplitude_names, fit.best.amplitudes, strict=True))
    return {
        "parameters": {name: float(value) for name, value in parameters.items()},
        "latents": [float(value) for value in u[fit.model.physical_dim :]],
        "log_posterior": float(fit.optimum.log_prob[0]),
    }


def best_images(fit: Any) -> fits.HDUList:
    """The best model in FITS extensions, each with its unit (BUNIT), pixel scale and world coordinates:

    | extension | content | unit |
    |---|---|---|
    | MODEL | lens and arcs, as observed | that of the image (counts/s) |
    | LENS_LIGHT | light of the lens and sky | the same |
    | LENSED_SOURCE | the arcs alone | the same |
    | RESIDUAL | data - model | units of the noise (1 sigma), NaN where masked |
    | SOURCE | posterior mean of the source before lensing | that of the image per arcsec^2 |

    The first four cover the frame of the fit; keywords FRAME_X0 and FRAME_Y0 tell its first pixel in the image, counted
    from 0. XCENTER and YCENTER are the middle, arcsec. World coordinates: the sky's, where the observation has any, are
    the primary ones; the linear frame in which the parameters are (arcsec from the middle of the image, x to the right)
    is the alternative `T` (`astropy.wcs.WCS(header, key="T")`), and the primary one where there is no other. The source
    plane has that frame alone.
    """
    best, target, observation = fit.best, fit.target, fit.observation
    rows, columns = (part.indices(n) for part, n in zip(target.frame, observation.image.shape, strict=True))
    header = _grid_header(target.grid)
    header["FRAME_X0"] = (columns[0], "first column in the image, from 0")
    header["FRAME_Y0"] = (rows[0], "first row in the image, from 0")
    if observation.wcs is not None:
        header.update(observation.wcs.slice((slice(*rows), slice(*columns))).to_header(relax=True))
        header.update(_linear(target.grid, "T"))
    else:
        header.update(_linear(target.grid, " "))
    unit = str(observation.metadata.get("BUNIT", "")).strip() or "count/s"
    frame = {
        "MODEL": (best.image, unit, "the whole model"),
        "LENS_LIGHT": (best.lens_light, unit, "lens and sky"),
        "LENSED_SOURCE": (best.lensed_source, unit, "the arcs alone"),
        "RESIDUAL": (best.residual, "", "residual / noise, NaN: masked"),
    }
    primary = fits.Header()
    primary["OBJECT"] = observation.name.encode("ascii", "replace").decode()[:60]
    primary["ORIGIN"] = (f"tflens {__version__}", "program that made the model")
    primary["CHI2"] = (best.chi2, "chi^2 per used pixel")
    hdus = [fits.PrimaryHDU(header=primary)]
    for name, (image, of_image, comment) in frame.items():
        own = header.copy()
        own["BUNIT"] = (of_image, comment)
        hdus.append(fits.ImageHDU(image.astype(np.float32), own, name))
    source = fit.posterior.data.predictions["source_mean"]
    x, y = (source[f"{axis}_source"].to_numpy() for axis in "xy")
    plane = PixelGrid((len(y), len(x)), float(x[1] - x[0]), (float(x.mean()), float(y.mean())))
    own = _grid_header(plane)
    own.update(_linear(plane, " "))
    own["BUNIT"] = (_per_square_arcsec(unit), "mean before lensing")
    hdus.append(fits.ImageHDU(source.to_numpy().reshape(plane.shape).astype(np.float32), own, "SOURCE"))
    return fits.HDUList(hdus)


def _fit_figure(fit: Any, folder: Path) -> "Figure":
    from tflens.curves_file import read_curves
    from tflens.plotting import fit_figure

    _, critical, caustic = read_curves(folder / "curves.fits")
    return fit_figure(fit, (critical, caustic))


def _per_square_arcsec(unit: str) -> str:
    """As FITS writes units if it knows this one (an electron it does not), else as astropy does."""
    try:
        found = units.Unit(unit) / units.arcsec**2
    except ValueError:
        return f"({unit}) arcsec-2"
    try:
        return found.to_string("fits")
    except ValueError:
        return found.to_string()


def _grid_header(grid: PixelGrid) -> fits.Header:
    header = fits.Header()
    header["PIXSCALE"] = (grid.pixel_scale, "arcsec/pixel")
    header["XCENTER"] = (round(grid.center[0], 9), "x of the middle, arcsec")
    header["YCENTER"] = (round(grid.center[1], 9), "y of the middle, arcsec")
    return header


def _linear(grid: PixelGrid, key: str) -> fits.Header:
    """The frame of the parameters as world coordinates."""
    wcs = WCS(naxis=2)
    wcs.wcs.alt = key
    wcs.wcs.ctype = "XLENS", "YLENS"
    wcs.wcs.cname = "x", "y"
    wcs.wcs.cunit = "arcsec", "arcsec"
    wcs.wcs.crpix = [(n + 1) / 2 for n in grid.shape[::-1]]
    wcs.wcs.crval = grid.center
    wcs.wcs.cdelt = grid.pixel_scale, grid.pixel_scale
    header = wcs.to_header()
    for keyword in ("LATPOLE", "MJDREF"):  # of the sky; the latter would overwrite that of the primary coordinates
        header.remove(keyword + key.strip(), ignore_missing=True)
        header.remove(keyword, ignore_missing=True)
    return header


def _write_table(path: Path, fit: Any) -> None:
    rows = plain(fit.posterior.table())
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
