"""The cases of circular mass profiles, of what is made elliptical from them, and of pixelated maps."""

import math
from collections.abc import Callable

import lenstronomy_conventions as conventions
import mpmath
import numpy as np
import tensorflow as tf
from mass_case import NASTY_ELLIPTICITIES, Lenstronomy, MassCase, Reference, Values, counterpart

from tflens.mass import (
    NFW,
    TNFW,
    EllipticalMass,
    EllipticalPotential,
    GaussianMass,
    Hernquist,
    MultiGaussianMass,
    PixelatedConvergence,
    PixelatedPotential,
    SersicMass,
)
from tflens.sersic import b_n

__all__ = ["CASES"]

Radial = Callable[[Values, np.ndarray], np.ndarray]  # (parameters, r) -> kappa

SIGMAS = [0.3, 0.8, 2.0]
NASTY_HALOS = {
    # Points of the harness lie exactly at a radius of 1.
    "r = Rs": {"Rs": 1.0},
    "r = Rs but for rounding": {"Rs": 1 + 1e-7},
    "small": {"Rs": 1e-6},
    "large": {"Rs": 1e3},
    "no mass": {"alpha_Rs": 0.0},
}
# Where lenstronomy keeps 10 digits; test_mass_radial.py compares with mpmath over more than the prior's range.
TNFW_RANGES = {"Rs": (0.2, 8.0), "r_trunc": (0.5, 30.0)}
NASTY_POTENTIALS = {
    "flattest": {"e1": 0.3 * (1 - 1e-6)},
    "flattest, tilted": {"e1": -0.18, "e2": 0.2399},
    "almost round": {"e1": 1e-9, "e2": -1e-9},
}


def same(name: str) -> Reference:
    """The lens of that name in lenstronomy, whose parameters are ours."""
    return counterpart([name], lambda v: [v])


def with_convergence(reference: Reference, kappa: Radial) -> Reference:
    """The reference, but for its convergence: lenstronomy takes it by differences, right to 6 digits or so."""

    def evaluate(values: Values, x: np.ndarray, y: np.ndarray):
        psi, ax, ay, _ = reference(values, x, y)
        return psi, ax, ay, kappa(values, np.hypot(x - values["center_x"], y - values["center_y"]))

    return evaluate


def elliptical_potential(ellipse: Reference, circular: Reference, kappa: Radial) -> Reference:
    """The reference for *_ELLIPSE_POTENTIAL; its convergence follows from the circular lens's Hessian, in q and phi.

    With r'^2 = (1 - eps) x'^2 + (1 + eps) y'^2 along the axes. lenstronomy takes it by differences of step 1e-10.
    """

    def evaluate(values: Values, x: np.ndarray, y: np.ndarray):
        psi, ax, ay, _ = ellipse(values, x, y)
        q, phi = conventions.axis_ratio_and_angle(values["e1"], values["e2"])
        eps = (1 - q**2) / (1 + q**2)
        w = (x - values["center_x"] + 1j * (y - values["center_y"])) * np.exp(-1j * phi)
        x, y = w.real * np.sqrt(1 - eps), w.imag * np.sqrt(1 + eps)
        r = np.hypot(x, y)
        on_circle = kappa(values, r)
        shape = {k: v for k, v in values.items() if k not in ("e1", "e2")} | {"center_x": 0.0, "center_y": 0.0}
        _, alpha, _, _ = circular(shape, r, np.zeros_like(r))
        along = 2 * on_circle - alpha / r  # psi''; psi'/r is alpha/r
        xx, yy = ((along * a**2 + alpha / r * b**2) / r**2 for a, b in ((x, y), (y, x)))
        return psi, ax, ay, ((1 - eps) * xx + (1 + eps) * yy) / 2

    return evaluate


def nfw_kappa(values: Values, r: np.ndarray) -> np.ndarray:
    from lenstronomy.LensModel.Profiles.nfw import NFW

    return NFW().density_2d(r, 0, values["Rs"], NFW.alpha2rho0(values["alpha_Rs"], values["Rs"]))


def tnfw_kappa(values: Values, r: np.ndarray) -> np.ndarray:
    from lenstronomy.LensModel.Profiles.tnfw import TNFW

    rho0 = TNFW.alpha2rho0(values["alpha_Rs"], values["Rs"])
    return TNFW().density_2d(r, 0, values["Rs"], rho0, values["r_trunc"])


def hernquist_kappa(values: Values, r: np.ndarray) -> np.ndarray:
    """In 40 digits: lenstronomy's difference of 3 and (2 + x^2) F, over (x^2 - 1)^2, loses half of its digits at Rs."""
    with mpmath.workdps(40):
        return np.array([float(values["sigma0"] * _hernquist(mpmath.mpf(v) / values["Rs"])) for v in r])


def _hernquist(x: mpmath.mpf) -> mpmath.mpf:
    # Keeton 2001, eq. 46 and 48.
    root = mpmath.sqrt(1 - x**2)
    return mpmath.re(((2 + x**2) * mpmath.atanh(root) / root - 3) / (1 - x**2) ** 2)


def sersic_kappa(values: Values, r: np.ndarray) -> np.ndarray:
    from lenstronomy.LensModel.Profiles.sersic import Sersic

    v = lenstronomy_sersic(values)
    n = v["n_sersic"]
    return v["k_eff"] * np.exp(-Sersic.b_n(n) * ((r / v["R_sersic"]) ** (1 / n) - 1))


def sersic(name: str) -> Reference:
    return counterpart([name], lambda v: [lenstronomy_sersic(v)])


def lenstronomy_sersic(values: Values) -> Values:
    """SERSIC: the same profile for its b_n = 1.9992 n - 0.3271, which only approximates half of the mass."""
    n = values["n_sersic"]
    ours, theirs = float(b_n(tf.constant(n, tf.float64))), 1.9992 * n - 0.3271
    return values | {
        "R_sersic": values["R_sersic"] * (theirs / ours) ** n,
        "k_eff": values["k_eff"] * math.exp(ours - theirs),
    }


def lenstronomy_multi_gaussian(values: Values, sigmas: list[float]) -> dict[str, object]:
    """MULTI_GAUSSIAN: lists of amplitudes and widths."""
    return {
        "amp": [values[f"amp_{i}"] for i in range(len(sigmas))],
        "sigma": sigmas,
        "center_x": values["center_x"],
        "center_y": values["center_y"],
    }


def potential_map(shape: tuple[int, int]) -> np.ndarray:
    """A smooth map and some noise."""
    y, x = np.indices(shape)
    return np.sin(0.5 * x) * np.cos(0.4 * y) + 0.1 * x + 0.05 * np.random.default_rng(1).normal(size=shape)


CASES: dict[str, MassCase] = {
    "NFW": MassCase(exact=NFW(), nasty=NASTY_HALOS, lenstronomy=Lenstronomy(same("NFW"))),
    "TNFW": MassCase(
        exact=TNFW(),
        nasty=NASTY_HALOS
        | {
            "r = r_trunc": {"r_trunc": 1.0},
            "r_trunc = Rs": {"r_trunc": 1.0, "Rs": 1.0},
            "truncated far inside": {"r_trunc": 1e-2},
            "truncated far outside": {"r_trunc": 1e4},
        },
        lenstronomy=Lenstronomy(same("TNFW")),
        ranges=TNFW_RANGES,
    ),
    "Hernquist": MassCase(
        exact=Hernquist(),
        nasty={"r = Rs": {"Rs": 1.0}, "small": {"Rs": 1e-6}, "large": {"Rs": 1e3}},
        lenstronomy=Lenstronomy(with_convergence(same("HERNQUIST"), hernquist_kappa)),
    ),
    "SersicMass": MassCase(
        exact=SersicMass(),
        nasty={
            "lowest index": {"n_sersic": 0.5 + 1e-6},
            "highest index": {"n_sersic": 8.0 - 1e-6},
            "small": {"R_sersic": 1e-3},
            "small, low index": {"R_sersic": 1e-3, "n_sersic": 0.51},
            "large": {"R_sersic": 1e3},
        },
        lenstronomy=Lenstronomy(with_convergence(sersic("SERSIC"), sersic_kappa)),
    ),
    "GaussianMass": MassCase(
        exact=GaussianMass(),
        nasty={"small": {"sigma": 1e-4}, "large": {"sigma": 1e3}},
        lenstronomy=Lenstronomy(same("GAUSSIAN")),
        # Its convergence is a small sum of large second derivatives far out.
        ranges={"sigma": (0.8, 20.0)},
    ),
    "MultiGaussianMass": MassCase(
        exact=MultiGaussianMass(SIGMAS),
        nasty={"one component": {"amp_0": 0.0, "amp_2": 0.0}},
        lenstronomy=Lenstronomy(counterpart(["MULTI_GAUSSIAN"], lambda v: [lenstronomy_multi_gaussian(v, SIGMAS)])),
    ),
    **{
        f"EllipticalPotential, {circular}": MassCase(
            exact=EllipticalPotential(circular),
            nasty=NASTY_POTENTIALS,
            lenstronomy=Lenstronomy(reference),
            ranges=TNFW_RANGES if isinstance(circular, TNFW) else {},
        )
        for circular, reference in (
            (NFW(), elliptical_potential(same("NFW_ELLIPSE_POTENTIAL"), same("NFW"), nfw_kappa)),
            (TNFW(), elliptical_potential(same("TNFW_ELLIPSE_POTENTIAL"), same("TNFW"), tnfw_kappa)),
            (
                Hernquist(),
                elliptical_potential(same("HERNQUIST_ELLIPSE_POTENTIAL"), same("HERNQUIST"), hernquist_kappa),
            ),
            (SersicMass(), elliptical_potential(sersic("SERSIC_ELLIPSE_POTENTIAL"), sersic("SERSIC"), sersic_kappa)),
        )
    },
    "EllipticalMass, NFW": MassCase(
        exact=EllipticalMass(NFW(), nodes=48),
        shipped=EllipticalMass(NFW()),
        nasty=NASTY_ELLIPTICITIES | NASTY_HALOS,
    ),
    "EllipticalMass, Gaussian": MassCase(
        exact=EllipticalMass(GaussianMass(), nodes=48),
        shipped=EllipticalMass(GaussianMass()),
        nasty=NASTY_ELLIPTICITIES | {"small": {"sigma": 1e-4}, "large": {"sigma": 1e3}},
        lenstronomy=Lenstronomy(same("GAUSSIAN_ELLIPSE_KAPPA")),
        ranges={"e1": (0.1, 0.42), "e2": (-0.42, 0.42), "sigma": (0.8, 20.0)},
    ),
    "PixelatedPotential": MassCase(exact=PixelatedPotential(0.37, potential_map((9, 12)))),
    "PixelatedConvergence": MassCase(exact=PixelatedConvergence(0.31, np.abs(potential_map((7, 10))))),
}
