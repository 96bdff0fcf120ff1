"""Whether fits are right, and their errors honest: many mocks with known truth, each fitted blind.

Figures F1-F7: the Einstein radius, calibration of the mass parameters (z-scores, ranks as in simulation-based
calibration, Talts et al. 2018, arXiv:1804.06788; coverage), residuals in the arcs, the source, failures, cost. Every
mock counts, failures included; one without a fit is a failure (F5), and the other figures tell how many have fits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tflens.datasets.half_light import half_light_radius
from tflens.grid import PixelGrid
from tflens.inference.check import check
from tflens.inference.mock_lenses import lens_model, survey
from tflens.inference.mocks import Mock, Shoot
from tflens.inference.pipeline import Fit
from tflens.inference.posterior import draw_images, source_inputs
from tflens.light import LightProfile
from tflens.model import LensModel
from tflens.wilson import wilson

MASS = (
    "lens.theta_E",
    "lens.e1",
    "lens.e2",
    "lens.center_x",
    "lens.center_y",
    "shear.gamma1",
    "shear.gamma2",
)
"""Parameters whose calibration is measured."""

_DRAWS = 64  # of the posterior that a reconstructed source is averaged over
_FAILED_ERROR, _FAILED_R_HAT = 0.05, 1.05


Brightness = Callable[[tf.Tensor, tf.Tensor], NDArray[np.floating]]


def mock_name(seed: int, index: int) -> str:
    """Of mock `index` of the sample `seed`."""
    return f"mock {index} of seed {seed}"


def chosen_stamp(stamps: NDArray[np.floating], seed: int, index: int) -> NDArray[np.floating]:
    """The galaxy `[n, n]` of mock `index`, one of the stamps `[N, n, n]`: each mock another, while they last."""
    return stamps[np.random.default_rng(seed).permutation(len(stamps))[index % len(stamps)]]


def draw_mock(
    source: LightProfile, stamp: NDArray[np.floating] | None, seed: int, index: int, shoot: Shoot | None = None
) -> Mock:
    """Mock `index` of the sample `seed`: it depends on these two alone, not on how many there are.

    Args:
        source: `Pixelated` on the pixel scale of the stamp, or a neural source, which draws the galaxy from its prior.
        stamp: the galaxy `[n, n]`, None for a source that draws its own.
        seed, index: of the mock.
        shoot: another code that draws the image, see `Survey.draw`.
    """
    return survey().draw(lens_model(source), stamp, [seed, index], mock_name(seed, index), shoot)


def compare(mock: Mock, fit: Fit) -> dict[str, Any]:
    """Truth and fit of one mock in plain values: what `figures` takes.

    Of each mass parameter: `rank`, the share of all draws below the truth, from which coverage is counted; and `sbc`,
    its `thinned_rank`, from which the uniformity of ranks is judged.
    """
    posterior = fit.posterior
    rows = {row.name: row for row in posterior.table()}
    parameters = {}
    for name in MASS:
        draws, truth, row = posterior.draws(name), mock.parameters[name], rows[name]
        parameters[name] = {
            "truth": truth,
            "median": row.median,
            "std": float(draws.std()),
            "rank": float(np.mean(draws < truth)),
            "sbc": thinned_rank(posterior.data.posterior[name].to_numpy(), truth, row.ess),
            "r_hat": row.r_hat,
            "ess": row.ess,
        }
    found = fit.diagnostics()
    keys = (
        "max_r_hat",
        "min_ess",
        "acceptance",
        "divergences",
        "chi2",
        "chi2_arcs",
        "starts_agreeing",
        "latent_norm",
        "discrepancy",
    )
    return {
        "name": mock.observation.name,
        "parameters": parameters,
        "source": _compare_source(mock, fit),
        **{key: found[key] for key in keys},
        "checks": {finding.name: finding.level for finding in check(fit)},
        "peak_snr": float((mock.arcs / mock.observation.noise).max()),
        "arcs_snr": float(np.sqrt(np.sum((mock.arcs / mock.observation.noise) ** 2))),
        "magnification": mock.magnification,
        "gradients": int(posterior.data.sample_stats.attrs["gradients"]),
        "seconds": float(sum(fit.seconds.values())),
        "stages": {stage: float(seconds) for stage, seconds in fit.seconds.items()},
    }


def thinned_rank(draws: NDArray[np.floating], truth: float, ess: float) -> list[int]:
    """Rank of the truth among draws that are nearly independent: how many are below it, and how many there are.

    The rank of the truth among L independent draws of an honest posterior has each of the values 0 to L equally often.
    Draws of a chain that follow each other are alike, so that its rank is 0 or L too often (Talts et al. 2018, section
    5.1): every k-th draw of each chain is taken, about as many in all as the effective sample size.

    Args:
        draws: `[chains, draws]`.
        truth: of the same parameter.
        ess: effective sample size of all these draws.

    Example:
        >>> thinned_rank(np.arange(12.0).reshape(2, 6), truth=7.5, ess=4)  # of 0, 3, 6 and 9
        [3, 4]
    """
    count = draws.shape[1]
    step = min(int(np.ceil(draws.size / max(ess, 1.0))), count) if np.isfinite(ess) else count
    kept = draws[:, ::step]
    return [int(np.sum(kept < truth)), int(kept.size)]


def uniform_ranks(results: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Ranks of the truths among thinned draws as numbers in (0, 1), `[mocks, parameters]`, of mocks with fits.

    A rank of 0 to L becomes a number within its step of width 1 / (L + 1), at random but always the same: so ranks
    among different numbers of draws can stand in one sample that is uniform, exactly, if posteriors are honest, and the
    Kolmogorov-Smirnov test against a continuous distribution is right for it.
    """
    found = np.array([[each["parameters"][name]["sbc"] for name in MASS] for each in with_fits(results)], float)
    found = found.reshape(-1, len(MASS), 2)
    return (found[..., 0] + np.random.default_rng(0).uniform(size=found.shape[:2])) / (found[..., 1] + 1)


def with_fits(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those mocks that have a fit; others have `no_fit`, the reason, instead."""
    return [each for each in results if "no_fit" not in each]


def reasons(result: dict[str, Any]) -> list[str]:
    """Why a mock counts as failed, none if it does not: no fit; theta_E off by more than 5 %; R-hat above 1.05.

    Example:
        >>> reasons({"no_fit": "the process was ended by SIGKILL"})
        ['no fit: the process was ended by SIGKILL']
    """
    if "no_fit" in result:
        return [f"no fit: {result['no_fit']}"]
    found = []
    error = theta_E_error(result)
    if not abs(error) <= _FAILED_ERROR:
        found.append(f"theta_E off by {error:+.1%}")
    r_hat = {name: result["parameters"][name]["r_hat"] for name in MASS}
    large = [name for name, value in r_hat.items() if not value <= _FAILED_R_HAT]
    if large:
        worst = max(large, key=lambda name: np.nan_to_num(r_hat[name], nan=np.inf))
        more = f" and of {len(large) - 1} more" if len(large) > 1 else ""
        found.append(f"R-hat {r_hat[worst]:.3f} of {worst}{more}")
    return found


def failed(result: dict[str, Any]) -> bool:
    """Whether a mock counts as failed, see `reasons`."""
    return bool(reasons(result))


def theta_E_error(result: dict[str, Any]) -> float:
    """Of the median, relative to the truth."""
    theta_E = result["parameters"]["lens.theta_E"]
    return theta_E["median"] / theta_E["truth"] - 1


def z_score(result: dict[str, Any], name: str) -> float:
    """Error of a parameter's median in standard deviations of its posterior."""
    found = result["parameters"][name]
    return (found["median"] - found["truth"]) / found["std"]


def figures(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of F1-F5 and F7 from results of `compare`; shares have the 68 % interval of Wilson's score.

    Mocks without a fit (`no_fit`) count in F5, as within none of its limits; all others are figures of those with fits,
    as many as the record's `fits`. F2's p-value of ranks is that of `uniform_ranks`.
    """
    fitted = with_fits(results)
    missing = [True] * (len(results) - len(fitted))
    error = np.abs([theta_E_error(each) for each in fitted])
    worst = np.array([each["max_r_hat"] for each in fitted])
    shares = [
        _record(
            "F5",
            "failures: theta_E off by 5 %, or R-hat of the mass above 1.05",
            _share([failed(each) for each in results]),
            0.0,
            0.05,
            0.01,
        ),
        _record("F5", "theta_E off by 5 %", _share([*~(error <= _FAILED_ERROR), *missing]), 0.0, None, None),
        _record(
            "F5",
            "R-hat of anything above 1.05, latents included",
            _share([*~(worst <= _FAILED_R_HAT), *missing]),
            0.0,
            None,
            None,
        ),
    ]
    if fitted:
        before, after = _figures_of_fits(fitted, error)
        shares = [*before, *shares, *after]
    return [{**record, "fits": len(fitted)} for record in shares]


def _figures_of_fits(
    results: Sequence[dict[str, Any]], error: NDArray[np.floating]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """F1-F4, and L5 and F7."""
    n = len(results)
    z = np.array([[z_score(each, name) for name in MASS] for each in results])
    rank = np.array([[each["parameters"][name]["rank"] for name in MASS] for each in results])
    uniform = uniform_ranks(results)
    coverage = {level: np.mean(np.abs(rank - 0.5) <= level / 2, 0) for level in (0.68, 0.95)}
    chi2 = np.array([np.nan if each["chi2_arcs"] is None else each["chi2_arcs"] for each in results], float)
    records = [
        _record("F1", "theta_E: median of abs(error)", _median(error), 0.0, 0.003, 0.001),
        _record("F1", "theta_E: 95th percentile of abs(error)", _plain(np.quantile(error, 0.95)), 0.0, 0.01, 0.0043),
    ]
    for i, name in enumerate(MASS):
        p_value = stats.kstest(uniform[:, i], "uniform").pvalue
        records += [
            _record("F2", f"{name}: mean of z", {**_plain(z[:, i].mean()), "spread": _around(z[:, i])}, 0.0, 0.3, 0.2),
            _record("F2", f"{name}: standard deviation of z", _plain(z[:, i].std()), 1.0, (0.8, 1.25), (0.9, 1.1)),
            _record("F2", f"{name}: p-value of uniform ranks", _plain(p_value), 0.5, None, None),
        ]
    for level, inside in coverage.items():
        aim = (level - 0.05, level + 0.05) if level < 0.9 else (level - 0.03, level + 0.03)
        share = {"value": float(inside.mean()), "spread": wilson(inside.mean() * n, n)}
        records.append(_record("F2", f"truths in the {level:.0%} interval, all of these", share, level, None, aim))
    source = {name: np.array([each["source"][name] for each in results]) for name in ("error", "flux", "r50")}
    records += [
        _record("F3", "chi^2 in the arcs", _median(chi2), 1.0, (0.95, 1.05), (0.98, 1.02)),
        _record("F4", "source: rms error over the image plane", _median(source["error"]), 0.0, 0.15, 0.08),
        _record("F4", "source: flux, median of abs(error)", _median(np.abs(source["flux"])), 0.0, 0.08, 0.03),
        _record("F4", "source: r50, median of abs(error)", _median(np.abs(source["r50"])), 0.0, 0.08, 0.03),
    ]
    norm = [each["latent_norm"] for each in results if each["latent_norm"] is not None]
    latents = []
    if norm:
        latents = [_record("L5", "mean of u^2 of the latents", _median(np.array(norm)), 1.0, (0.8, 1.25), (0.9, 1.1))]
    cost = {"seconds a lens": "seconds", "gradients a lens": "gradients", "smallest ESS": "min_ess"}
    costs = [
        _record("F7", figure, _median(np.array([each[key] for each in results])), None, None, None)
        for figure, key in cost.items()
    ]
    return records, [*latents, *costs]


def _compare_source(mock: Mock, fit: Fit) -> dict[str, float]:
    """The reconstructed source, a mean over draws, against the truth.

    `error`: rms difference of brightness where the image's pixels see the source through the true lens, so that each
    part counts as it is magnified, over the rms of the truth there. `flux` and `r50` (of the circle that holds half of
    the light): relative errors.
    """
    truth = lens_model(mock.source)
    values = {name: tf.constant(value, tf.float64) for name, value in mock.parameters.items()}
    x, y = (tf.constant(axis.astype(np.float64)) for axis in mock.observation.grid.coordinates())
    alpha_x, alpha_y = truth.total_mass(values).deflection(x, y)
    seen = (x - alpha_x, y - alpha_y)
    center = (mock.parameters["source.center_x"], mock.parameters["source.center_y"])
    plane = PixelGrid((120, 120), 0.025, center).coordinates()
    true, found = (
        [brightness(*(tf.cast(axis, dtype) for axis in places)) for places in (seen, plane)]
        for brightness, dtype in ((_true_brightness(mock, truth), tf.float64), (_mean_brightness(fit), fit.model.dtype))
    )
    r50 = [float(half_light_radius(np.maximum(image[None], 0))[0][0]) for image in (true[1], found[1])]
    flux = [float(image.sum() * 0.025**2) for image in (true[1], found[1])]
    return {
        "error": float(np.sqrt(np.mean((found[0] - true[0]) ** 2) / np.mean(true[0] ** 2))),
        "flux": flux[1] / flux[0] - 1,
        "r50": r50[1] / r50[0] - 1,
    }


def _true_brightness(mock: Mock, truth: LensModel) -> Brightness:
    place = {
        name: tf.constant(mock.parameters[f"source.{name}"], tf.float64) for name in truth.sources[0].parameter_names
    }
    image = tf.constant(np.asarray(mock.stamp, np.float64) / np.sum(mock.stamp))
    return lambda x, y: mock.flux * truth.sources[0].brightness(x, y, image=image, **place).numpy()


def _mean_brightness(fit: Fit) -> Brightness:
    """Of the source over draws that are spread evenly over the chains."""
    posterior, model, target = fit.posterior.data.posterior, fit.model, fit.target
    u = posterior["u"].to_numpy().reshape(-1, model.dim)
    chosen = np.linspace(0, len(u) - 1, min(_DRAWS, len(u))).astype(int)
    amplitudes = np.stack([posterior[name].to_numpy().reshape(-1)[chosen] for name in model.amplitude_names], 1)
    _, field = draw_images(target, u[chosen], amplitudes, np.random.default_rng(fit.settings.seed))
    ((source, inputs, amplitude),) = source_inputs(target, u[chosen], amplitudes, field)
    return lambda x, y: np.mean(source.brightness(x, y, **inputs).numpy() * amplitude[:, None, None], 0)


def _record(id: str, variant: str, value: dict[str, Any], null: Any, reach: Any, beat: Any) -> dict[str, Any]:
    return {"id": id, "figure": variant, "spread": None, **value, "null": null, "reach": reach, "beat": beat}


def _plain(value: float) -> dict[str, Any]:
    return {"value": float(value)}


def _median(values: NDArray[np.floating]) -> dict[str, Any]:
    # A fit that found no arcs at all has no chi^2 in them.
    low, middle, high = np.nanquantile(values, [0.16, 0.5, 0.84])
    return {"value": float(middle), "spread": [float(low), float(high)]}


def _around(values: NDArray[np.floating]) -> list[float]:
    """The mean's standard error on either side of it."""
    error = values.std() / np.sqrt(len(values))
    return [float(values.mean() - error), float(values.mean() + error)]


def _share(chosen: ArrayLike) -> dict[str, Any]:
    chosen = np.asarray(chosen)
    return {"value": float(chosen.mean()), "spread": wilson(int(chosen.sum()), len(chosen))}
