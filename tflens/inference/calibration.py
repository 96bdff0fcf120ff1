"""Whether fits are right, and their errors honest: many mocks with known truth, each fitted blind.

Figures F1-F7: the Einstein radius, calibration of the mass parameters (z-scores, ranks as in simulation-based
calibration, Talts et al. 2018, arXiv:1804.06788; coverage), residuals in the arcs, the source, failures, cost. Every
mock counts, failures included.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tflens.datasets.half_light import half_light_radius
from tflens.galaxies import NeuralSource
from tflens.grid import PixelGrid
from tflens.inference.check import check
from tflens.inference.mocks import Mock, Survey, gaussian_psf
from tflens.inference.pipeline import Fit
from tflens.inference.posterior import draw_missed, source_inputs
from tflens.light import LightProfile, Pixelated, Sersic
from tflens.mass import EPL, Shear
from tflens.model import LensModel
from tflens.parameters import bounded_normal, log_normal, normal
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

SOURCES = ("flow", "normal", "sersic")
"""What a mock is fitted with: the neural source with its flow for prior, the same with N(0, I), a Sersic profile."""

_PRIORS = {
    "lens.theta_E": log_normal(1.2, 0.15),
    "lens.center_x": normal(0.0, 0.05),
    "lens.center_y": normal(0.0, 0.05),
    "light.R_sersic": log_normal(0.6, 0.3),
    "light.n_sersic": bounded_normal(0.5, 8.0, 3.0, 1.0),
    "light.center_x": normal(0.0, 0.05),
    "light.center_y": normal(0.0, 0.05),
    "source.center_x": normal(0.0, 0.2),
    "source.center_y": normal(0.0, 0.2),
}
_SCALE = log_normal(1.0, 0.1)
_DRAWS = 64  # of the posterior that a reconstructed source is averaged over
_FAILED_ERROR, _FAILED_R_HAT = 0.05, 1.05


Brightness = Callable[[tf.Tensor, tf.Tensor], NDArray[np.floating]]


def survey() -> Survey:
    """Images like those of Euclid's VIS: 52 x 54 pixels of 0.1 arcsec, a Gaussian PSF of FWHM 0.16 arcsec."""
    return Survey(PixelGrid((52, 54), 0.1), gaussian_psf(0.16, 0.1))


def lens_model(source: LightProfile) -> LensModel:
    """Power law with shear, one Sersic profile of lens light, and a source: the prior of mocks and of fits."""
    priors = _PRIORS | ({"source.scale": _SCALE} if isinstance(source, Pixelated) else {})
    return LensModel([EPL(), Shear()], [Sersic()], source, priors=priors)


def fitted_source(kind: str, galaxies: str = "galaxies") -> LightProfile:
    """The source that mocks are fitted with, one of `SOURCES`."""
    return Sersic() if kind == "sersic" else NeuralSource(galaxies, prior=kind)


def draw_mock(stamps: NDArray[np.floating], pixel_scale: float, seed: int, index: int) -> Mock:
    """Mock `index` of the sample `seed`, its source one of the stamps `[N, n, n]`: each another, while they last."""
    chosen = np.random.default_rng(seed).permutation(len(stamps))[index % len(stamps)]
    model = lens_model(Pixelated(pixel_scale))
    return survey().draw(model, stamps[chosen], [seed, index], f"mock {index} of seed {seed}")


def compare(mock: Mock, fit: Fit) -> dict[str, Any]:
    """Truth and fit of one mock in plain values: what `figures` takes."""
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
            "r_hat": row.r_hat,
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


def failed(result: dict[str, Any]) -> bool:
    """Whether a fit failed: theta_E off by more than 5 %, or R-hat of a mass parameter above 1.05."""
    return bool(abs(_error(result)) > _FAILED_ERROR or not _mass_r_hat(result) <= _FAILED_R_HAT)


def figures(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of F1-F5 and F7 from results of `compare`; shares have the 68 % interval of Wilson's score."""
    error = np.abs([_error(each) for each in results])
    n = len(results)
    z = np.array([[_z(each, name) for name in MASS] for each in results])
    rank = np.array([[each["parameters"][name]["rank"] for name in MASS] for each in results])
    coverage = {level: np.mean(np.abs(rank - 0.5) <= level / 2, 0) for level in (0.68, 0.95)}
    chi2 = np.array([np.nan if each["chi2_arcs"] is None else each["chi2_arcs"] for each in results], float)
    records = [
        _record("F1", "theta_E: median of abs(error)", _median(error), 0.0, 0.003, 0.001),
        _record("F1", "theta_E: 95th percentile of abs(error)", _plain(np.quantile(error, 0.95)), 0.0, 0.01, 0.0043),
    ]
    for i, name in enumerate(MASS):
        p_value = stats.kstest(rank[:, i], "uniform").pvalue
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
    worst = np.array([each["max_r_hat"] for each in results])
    norm = [each["latent_norm"] for each in results if each["latent_norm"] is not None]
    return [
        *records,
        _record("F3", "chi^2 in the arcs", _median(chi2), 1.0, (0.95, 1.05), (0.98, 1.02)),
        _record("F4", "source: rms error over the image plane", _median(source["error"]), 0.0, 0.15, 0.08),
        _record("F4", "source: flux, median of abs(error)", _median(np.abs(source["flux"])), 0.0, 0.08, 0.03),
        _record("F4", "source: r50, median of abs(error)", _median(np.abs(source["r50"])), 0.0, 0.08, 0.03),
        _record(
            "F5",
            "failures: theta_E off by 5 %, or R-hat of the mass above 1.05",
            _share([failed(each) for each in results]),
            0.0,
            0.05,
            0.01,
        ),
        _record("F5", "theta_E off by 5 %", _share(error > _FAILED_ERROR), 0.0, None, None),
        _record("F5", "R-hat of anything above 1.05, latents included", _share(worst > _FAILED_R_HAT), 0.0, None, None),
        *(
            [_record("L5", "mean of u^2 of the latents", _median(np.array(norm)), 1.0, (0.8, 1.25), (0.9, 1.1))]
            if norm
            else []
        ),
        _record("F7", "seconds a lens", _median(np.array([each["seconds"] for each in results])), None, None, None),
        _record("F7", "gradients a lens", _median(np.array([each["gradients"] for each in results])), None, None, None),
        _record("F7", "smallest ESS", _median(np.array([each["min_ess"] for each in results])), None, None, None),
    ]


def _compare_source(mock: Mock, fit: Fit) -> dict[str, float]:
    """The reconstructed source, a mean over draws, against the truth.

    `error`: rms difference of brightness where the image's pixels see the source through the true lens, so that each
    part counts as it is magnified, over the rms of the truth there. `flux` and `r50` (of the circle that holds half of
    the light): relative errors.
    """
    truth = lens_model(Pixelated(mock.stamp_scale))
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
    images = target.component_images(tf.constant(u[chosen]), tf.constant(amplitudes, model.dtype)).numpy()
    field, _ = draw_missed(target, target.image - images.sum(1), np.random.default_rng(fit.settings.seed))
    ((source, inputs, amplitude),) = source_inputs(target, u[chosen], amplitudes, field)
    return lambda x, y: np.mean(source.brightness(x, y, **inputs).numpy() * amplitude[:, None, None], 0)


def _error(result: dict[str, Any]) -> float:
    theta_E = result["parameters"]["lens.theta_E"]
    return theta_E["median"] / theta_E["truth"] - 1


def _z(result: dict[str, Any], name: str) -> float:
    found = result["parameters"][name]
    return (found["median"] - found["truth"]) / found["std"]


def _mass_r_hat(result: dict[str, Any]) -> float:
    return float(np.max([result["parameters"][name]["r_hat"] for name in MASS]))


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
