"""The picture of a calibration: whether errors are honest, and how large they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from scipy import stats

from tflens.inference.calibration import MASS, failed, theta_E_error, uniform_ranks, with_fits, z_score
from tflens.style import style

# Told apart by colour-blind readers, and by their lightness in print.
_WITHIN, _OUTSIDE, _BAND = "#4c6a92", "#d95f02", "0.88"
_SYMBOLS = dict(
    zip(
        MASS,
        (r"$\theta_E$", "$e_1$", "$e_2$", "centre $x$", "centre $y$", r"shear $\gamma_1$", r"shear $\gamma_2$"),
        strict=True,
    )
)


@style()
def calibration_figure(results: Sequence[dict[str, Any]], title: str = "") -> Figure:
    """How honest the errors of many fits are, at a glance: what is orange lies outside of what chance does.

    - For each mass parameter the ranks of the truths among the draws, which ought to be flat: a slope is a bias, a
      valley means intervals that are too narrow, a hill ones that are too wide. Bars outside of the band, which holds
      95 % of what chance does to a bar, are orange, as is the title where the ranks are not uniform (p < 0.01).
    - Coverage: the share of truths in central intervals of each content, a thin line for each parameter and a thick one
      for their mean; below the diagonal intervals are too narrow.
    - z-scores of theta_E against the S/N of the arcs, with bands of one and two sigma.
    - Errors of theta_E, sorted, with the limit of failures. Mocks without a fit are orange columns at the end.

    Args:
        results: of `tflens.calibrate.fit_mocks`.
        title: what was fitted with what.
    """
    found = with_fits(results)
    figure = Figure(figsize=(13.5, 10.2), layout="constrained")
    figure.get_layout_engine().set(hspace=0.05)
    rows = figure.add_gridspec(3, 4, height_ratios=(1, 1, 1.15))
    panels = [figure.add_subplot(rows[i // 4, i % 4]) for i in range(8)]
    z_panel, error_panel = figure.add_subplot(rows[2, :2]), figure.add_subplot(rows[2, 2:])
    for panel, name, ranks in zip(panels, MASS, uniform_ranks(results).T, strict=False):
        _draw_ranks(panel, _SYMBOLS[name], ranks)
    for panel in (panels[0], panels[4]):
        panel.set_ylabel("mocks")
    _draw_coverage(panels[7], found)
    _draw_z(z_panel, found)
    _draw_errors(error_panel, results)
    n_failed = sum(failed(result) for result in results)
    words = f"{len(results)} mocks, {n_failed} failed" + (f": {title}" if title else "")
    figure.supxlabel(
        "grey: where 95 % of what chance does lies (z: one and two sigma)     orange: outside of it, or failed",
        fontsize=10,
    )
    figure.suptitle(words.replace("$", r"\$"), fontsize=13)
    return figure


def _draw_ranks(panel: Axes, symbol: str, ranks: NDArray[np.floating]) -> None:
    """With as many bars as leave four mocks or so in each, three to ten."""
    n = len(ranks)
    bars = int(np.clip(n // 4, 3, 10))
    counts, edges = np.histogram(ranks, bars, (0, 1))
    low, high = stats.binom.interval(0.95, n, 1 / bars) if n else (0, 0)
    # Counts of exactly the band's ends are within it.
    panel.axhspan(max(low - 0.5, 0), high + 0.5, color=_BAND, linewidth=0)
    panel.axhline(n / bars, color="0.4", linewidth=0.9)
    colours = [_WITHIN if low <= count <= high else _OUTSIDE for count in counts]
    panel.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours, edgecolor="white", linewidth=1.0)
    p = stats.kstest(ranks, "uniform").pvalue if n else 1.0
    panel.set_title(f"{symbol}:  p = {p:.2g}", color=_OUTSIDE if p < 0.01 else "black")
    panel.set(xlabel="rank of the truth", xlim=(0, 1), ylim=(0, max(1.15 * high + 1, counts.max(initial=0) + 1)))
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _draw_coverage(panel: Axes, found: Sequence[dict[str, Any]]) -> None:
    n, content = len(found), np.linspace(0, 1, 201)
    panel.plot([0, 1], [0, 1], color="0.4", linewidth=0.9)
    panel.set(
        title="coverage of all seven",
        xlabel="content of the interval",
        ylabel="share of truths in it",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    if not n:
        return
    rank = np.array([[each["parameters"][name]["rank"] for name in MASS] for each in found])
    inside = np.mean(np.abs(rank[:, :, None] - 0.5) <= content / 2, 0)
    low, high = np.array(stats.binom.interval(0.95, n, content)) / n
    panel.fill_between(content, low - 0.5 / n, high + 0.5 / n, color=_BAND, linewidth=0)
    for curve in inside:
        panel.plot(content, curve, color=_WITHIN, linewidth=0.7, alpha=0.6)
    panel.plot(content, inside.mean(0), color="black", linewidth=2.2)
    for level in (0.68, 0.95):
        share = float(np.mean(np.abs(rank - 0.5) <= level / 2))
        panel.plot(level, share, "o", color="black", markerfacecolor="white", markersize=6)
        panel.annotate(
            f"{share:.0%} in {level:.0%}",
            (level, share),
            (-8, -14) if share < 0.8 else (-8, -18),
            textcoords="offset points",
            horizontalalignment="right" if level > 0.9 else "left",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )


def _draw_z(panel: Axes, found: Sequence[dict[str, Any]]) -> None:
    for width in (2, 1):
        panel.axhspan(-width, width, color=_BAND if width == 2 else "0.8", linewidth=0)
    panel.axhline(0, color="0.4", linewidth=0.9)
    snr = np.array([each["peak_snr"] for each in found])
    z = np.array([z_score(each, "lens.theta_E") for each in found])
    limit = 5.0
    for chosen, colour, marker in (
        (np.abs(z) <= limit, _WITHIN, "o"),
        (z > limit, _OUTSIDE, "^"),
        (z < -limit, _OUTSIDE, "v"),
    ):
        panel.plot(snr[chosen], np.clip(z[chosen], -limit + 0.15, limit - 0.15), marker, color=colour, linestyle="none")
    beyond = int(np.sum(~(np.abs(z) <= limit)))
    panel.set(
        title=r"$\theta_E$: (median $-$ truth) / $\sigma$"
        + (f"; {beyond} beyond {limit:.0f}, at the edge" if beyond else ""),
        xlabel="S/N of the arcs' brightest pixel",
        ylabel="z",
        ylim=(-limit, limit),
    )


def _draw_errors(panel: Axes, results: Sequence[dict[str, Any]]) -> None:
    found = sorted(with_fits(results), key=lambda each: np.nan_to_num(abs(theta_E_error(each)), nan=np.inf))
    error = np.array([abs(theta_E_error(each)) for each in found])
    sigma = np.array(
        [each["parameters"]["lens.theta_E"]["std"] / each["parameters"]["lens.theta_E"]["truth"] for each in found]
    )
    bad = np.array([failed(each) for each in found], bool)
    place = np.arange(1, len(found) + 1)
    floor = 1e-5
    panel.set_yscale("log")
    panel.vlines(place, floor, np.maximum(error, floor), color="0.85", linewidth=1.0)
    panel.plot(place, sigma, "_", color="0.45", markersize=7, label=r"$\sigma$ of the fit")
    for chosen, colour, marker, label in ((~bad, _WITHIN, "o", "error"), (bad, _OUTSIDE, "X", "error, failed")):
        panel.plot(place[chosen], np.maximum(error[chosen], floor), marker, color=colour, label=label)
    missing = len(results) - len(found)
    if missing:
        panel.axvspan(len(found) + 0.5, len(results) + 0.5, color=_OUTSIDE, alpha=0.35, label=f"no fit: {missing}")
    for limit, words in ((0.003, "0.3 %"), (0.05, "5 %")):
        panel.axhline(limit, color="0.4", linewidth=0.9, linestyle="--")
        panel.annotate(
            words,
            (0.01, limit),
            (0, 3),
            xycoords=panel.get_yaxis_transform(),
            textcoords="offset points",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )
    panel.legend(loc="lower right", fontsize=9)
    panel.set(
        title=r"$\theta_E$: |error|, sorted",
        xlabel="mocks",
        xlim=(0.5, len(results) + 0.5),
        ylim=(floor, max(0.2, 1.5 * error.max(initial=0))),
    )
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
