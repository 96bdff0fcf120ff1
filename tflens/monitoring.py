"""A running fit in TensorBoard: scalars, the residual, the source."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tflens.inference.pipeline import Fit
from tflens.inference.posterior import source_images, source_plane
from tflens.inference.progress import Status
from tflens.plotting import corner_figure, fit_figure, progress_figure, source_figure
from tflens.style import to_pixels

_IMAGES_A_STAGE = 4


class TensorBoardMonitor:
    """Writes what a fit reports as TensorBoard events; to be used as a context, and given to `fit` as its monitor.

    The step counts reports. Scalars: `loss` (-log posterior, up to a constant) and `chi2` (per used pixel) of the best
    point (in sampling: of the first chain), `theta_E/best`, and `theta_E/spread`, half the central 68 % over all
    starts or chains. Images, a few in every stage: `residual` (normalised) and `source`.

    Args:
        directory: of the events, made if it is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, TensorBoardMonitor(folder) as monitor:
        ...     monitor(Status("look", 0.0, np.zeros((0, 0))))
    """

    def __init__(self, directory: str | Path) -> None:
        self._writer = tf.summary.create_file_writer(str(directory))
        self._step = 0
        self._pictured = ("", -1)  # the stage and quarter of the last images

    def __call__(self, status: Status) -> None:
        if status.target is None:
            return
        with self._writer.as_default(step=self._step):
            tf.summary.scalar("loss", -status.log_prob)
            tf.summary.scalar("chi2", status.chi2)
            radius = status.parameters.get("lens.theta_E")
            if radius is not None:
                tf.summary.scalar("theta_E/best", radius[0])
                low, high = np.quantile(radius, [0.16, 0.84])
                tf.summary.scalar("theta_E/spread", (high - low) / 2)
            picture = (status.stage, int(status.fraction * _IMAGES_A_STAGE))
            if picture != self._pictured:
                self._pictured = picture
                self._write_images(status)
        self._writer.flush()
        self._step += 1

    def add_results(self, fit: Fit) -> None:
        """Adds the figures of the finished fit, as images `fit` and `corner`."""
        with self._writer.as_default(step=self._step):
            _write_image("fit", fit_figure(fit))
            _write_image("corner", corner_figure(fit.posterior))
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def _write_images(self, status: Status) -> None:
        target, best = status.target, status.best
        _write_image("residual", progress_figure(best.residual, target.grid.extent))
        physical = {name: value[:1] for name, value in status.parameters.items()}
        grid = source_plane(target, physical)
        image = source_images(target, grid, status.points[:1], best.amplitudes[None])[0]
        _write_image("source", source_figure(image, grid.extent))


def _write_image(name: str, figure: Figure) -> None:
    tf.summary.image(name, to_pixels(figure)[None])
