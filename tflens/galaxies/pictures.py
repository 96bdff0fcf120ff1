"""Figures of an evaluation, to be looked at: what the model draws, and where it differs from the galaxies."""

from pathlib import Path

import numpy as np
from corner import corner
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tflens.files import write_atomically
from tflens.galaxies.evaluation import Evaluation, band_name
from tflens.galaxies.morphology import STATISTICS
from tflens.galaxies.real_stamps import RealFits, RealStamps
from tflens.galaxies.targets import Band

REAL, MODEL, NULL = "#333333", "#d1495b", "#8d99ae"


def draw_evaluation(evaluation: Evaluation, directory: str | Path) -> list[Path]:
    """Writes all figures of an evaluation as PNG files, and returns their paths."""
    figures = {"sharpness": sharpness_figure(evaluation), "latents": latents_figure(evaluation)}
    for band in evaluation.observed:
        figures[f"reconstructions_{band_name(band)}"] = reconstructions_figure(evaluation, band)
        figures[f"prior_{band_name(band)}"] = prior_figure(evaluation, band)
        figures[f"morphology_{band_name(band)}"] = morphology_figure(evaluation, band)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(directory / f"{name}.png")
        write_atomically(paths[-1], lambda path, figure=figure: figure.savefig(path, dpi=80))
    return paths


def reconstructions_figure(evaluation: Evaluation, band: Band, count: int = 6) -> Figure:
    """A row for each galaxy: truth and model before the PSF, data, model, residual in sigma; from the mean of q."""
    observed, titles = (
        evaluation.observed[band],
        ("truth before PSF", "model before PSF", "data", "model", "residual / sigma"),
    )
    count = min(count, len(observed.image))
    figure = Figure(figsize=(2 * len(titles), 2 * count + 0.4), layout="constrained")
    figure.suptitle(f"{evaluation.variant}, S/N {band_name(band)}", fontsize=10)
    axes = figure.subplots(count, len(titles), squeeze=False)
    for i, row in enumerate(axes):
        truth, data, seen = observed.truth[i], observed.image[i], evaluation.seen[band][i]
        residual = (data - seen) / observed.sigma[i]
        for panel, image in ((row[0], truth), (row[1], evaluation.decoded[band][i])):
            _show(panel, image, truth.max())
        for panel, image in ((row[2], data), (row[3], seen)):
            _show(panel, image, observed.signal[i].max(), observed.sigma[i])
        row[4].imshow(residual, origin="lower", cmap="RdBu_r", vmin=-4, vmax=4)
        row[4].set_ylabel(f"chi$^2$ {np.mean(residual**2):.2f}", fontsize=8)
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=9)
    _without_ticks(axes)
    return figure


def prior_figure(evaluation: Evaluation, band: Band, columns: int = 12, rows: int = 3) -> Figure:
    """Held-out galaxies, and samples of the prior with the same PSF and noise."""
    groups = {"held-out galaxies": evaluation.observed[band], "samples of the prior": evaluation.prior[band]}
    figure = Figure(figsize=(columns, 2 * (rows + 0.4)), layout="constrained")
    for part, (title, observed) in zip(figure.subfigures(2, 1), groups.items(), strict=True):
        part.suptitle(f"{title}, S/N {band_name(band)}", fontsize=10)
        axes = part.subplots(rows, columns, squeeze=False)
        for panel in axes.flat:
            panel.axis("off")
        for panel, image, signal, sigma in zip(
            axes.flat, observed.image, observed.signal, observed.sigma, strict=False
        ):
            _show(panel, image, signal.max(), sigma)
    return figure


def sharpness_figure(evaluation: Evaluation) -> Figure:
    """The ratios of power of G8, with their aims."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(0.8, 1.25, color="#eeeeee", label="reach")
    axes.axhspan(0.9, 1.1, color="#dddddd", label="beat")
    colors = {"two halves of the data": NULL, "mean of q": MODEL, "prior samples": "#00798c"}
    for name, (k, ratio) in evaluation.sharpness.items():
        axes.plot(k, ratio, color=colors[name], label=name)
    axes.set(
        xlabel="wave number, cycles a stamp (up to half of Nyquist)",
        ylabel="power / power of the truth",
        yscale="log",
        title=f"{evaluation.variant}: sharpness before the PSF",
    )
    ticks = [0.1, 0.2, 0.5, 0.8, 1, 1.25, 2]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    lowest = min(ratio.min() for _, ratio in evaluation.sharpness.values())
    highest = max(ratio.max() for _, ratio in evaluation.sharpness.values())
    axes.set_ylim(min(0.7, lowest / 1.1), max(1.4, highest * 1.1))
    axes.legend(fontsize=8)
    return figure


def morphology_figure(evaluation: Evaluation, band: Band) -> Figure:
    """Histograms of the ten statistics, held-out galaxies beside samples of the prior."""
    real, drawn = evaluation.statistics[band]
    distances = next(r for r in evaluation.records if r["id"] == "G5" and r["snr"] == band_name(band))["parts"]
    figure = Figure(figsize=(13, 5), layout="constrained")
    figure.suptitle(f"{evaluation.variant}: held-out galaxies (grey) and samples of the prior, S/N {band_name(band)}")
    for axes, name in zip(figure.subplots(2, 5).flat, STATISTICS, strict=True):
        a, b = (values[name][np.isfinite(values[name])] for values in (real, drawn))
        low, high = np.percentile(np.concatenate([a, b]), [0.5, 99.5]) if len(a) + len(b) else (0.0, 0.0)
        if low < high:
            bins = np.linspace(low, high, 31)
            axes.hist(a, bins, weights=_shares(a), color=NULL, alpha=0.6)
            axes.hist(b, bins, weights=_shares(b), histtype="step", color=MODEL, linewidth=1.5)
        distance = "not measured" if distances[name] is None else f"distance {distances[name]:.3f}"
        axes.set_title(f"{name}: {distance}", fontsize=9)
        axes.set_yticks([])
    return figure


def latents_figure(evaluation: Evaluation, dimensions: int = 5) -> Figure:
    """The aggregate posterior against the flow, in the dimensions in which the posterior is least Gaussian."""
    posterior, prior = evaluation.latents["held-out"], evaluation.latents["flow"]
    standard = (posterior - posterior.mean(0)) / posterior.std(0)
    # Skewness and excess kurtosis, in units of their noise.
    shape = np.abs(np.mean(standard**3, 0)) / np.sqrt(6) + np.abs(np.mean(standard**4, 0) - 3) / np.sqrt(24)
    chosen = np.sort(np.argsort(shape)[-dimensions:])
    both = np.concatenate([posterior, prior])
    ranges = [tuple(np.percentile(both[:, i], [0.2, 99.8])) for i in chosen]
    figure = Figure(figsize=(9, 9))
    options = {
        "fig": figure,
        "range": ranges,
        "plot_datapoints": False,
        "plot_density": False,
        "bins": 24,
        "smooth": 1.0,
    }
    normalised = {"hist_kwargs": {"density": True}}
    corner(posterior[:, chosen], color=REAL, labels=[f"$z_{{{i + 1}}}$" for i in chosen], **options, **normalised)
    corner(prior[:, chosen], color=MODEL, **options, hist_kwargs={"density": True, "color": MODEL})
    figure.suptitle(f"{evaluation.variant}: aggregate posterior (dark) and flow (red)", fontsize=11)
    return figure


def real_stamps_figure(stamps: RealStamps, fits: RealFits, variant: str, count: int = 24) -> Figure:
    """Data, model and residual of real stamps, every galaxy of an even choice through the order of chi^2."""
    order = np.argsort(fits.chi2)
    chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
    columns = 4
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(4.2 * columns, 1.55 * rows + 0.4), layout="constrained")
    figure.suptitle(f"{variant}: real stamps, model, residual / sigma (not whitened)", fontsize=10)
    axes = figure.subplots(rows, 3 * columns, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for place, i in enumerate(chosen):
        data, model, residual = axes[place // columns, 3 * (place % columns) : 3 * (place % columns) + 3]
        peak = max(fits.model[i].max(), 5 * fits.sigma[i])
        _show(data, fits.image[i], peak, fits.sigma[i])
        _show(model, fits.model[i], peak, fits.sigma[i])
        residual.imshow((fits.image[i] - fits.model[i]) / fits.sigma[i], origin="lower", cmap="RdBu_r", vmin=-4, vmax=4)
        data.set_title(f"{stamps.ident[i]}, S/N {stamps.snr[i]:.0f}", fontsize=7)
        residual.set_title(f"chi$^2$ {fits.chi2[i]:.2f}", fontsize=7)
    return figure


def _show(panel: Axes, image: NDArray, peak: float, sigma: float = 0.0) -> None:
    """With an arcsinh stretch up to a given peak, linear within the noise."""
    soft = max(0.03 * peak, sigma)
    panel.imshow(np.arcsinh(image / soft), origin="lower", cmap="magma", vmin=-0.5, vmax=np.arcsinh(peak / soft))


def _shares(values: NDArray) -> NDArray:
    return np.full(len(values), 1 / max(len(values), 1))


def _without_ticks(axes: NDArray) -> None:
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
