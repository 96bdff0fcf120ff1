"""Every mass profile as a case of the harness in test_mass.py."""

from collections.abc import Callable
from importlib.util import find_spec

import lenstronomy_conventions as conventions
import numpy as np
from mass_case import NASTY_ELLIPTICITIES, Lenstronomy, MassCase, Reference, Values, counterpart, parity

from tflens.mass import (
    DPIE,
    EPL,
    NIE,
    SIE,
    SIS,
    ConvergenceSheet,
    EllipticalMultipole,
    Multipole,
    PointMass,
    Shear,
    Subhalos,
)

__all__ = ["CASES", "Lenstronomy", "MassCase", "counterpart", "parity"]


def isothermal(keywords: Callable[[Values], list[Values]]) -> Reference:
    """A sum of NIE, with the convergence by its formula.

    lenstronomy's own differentiates the deflection over 1e-10 arcsec, which leaves three to six digits (see TestNIE).
    """

    def evaluate(values: Values, x: np.ndarray, y: np.ndarray):
        from lenstronomy.LensModel.Profiles.nie import NIE as Theirs

        lenses = keywords(values)
        psi, alpha_x, alpha_y, _ = counterpart(["NIE"] * len(lenses), lambda _: lenses)(values, x, y)
        kappa = 0.0
        for lens in lenses:
            b, s, q, phi = Theirs().param_conv(*(lens[k] for k in ("theta_E", "e1", "e2", "s_scale")))
            w = (x - lens["center_x"] + 1j * (y - lens["center_y"])) * np.exp(-1j * phi)
            kappa = kappa + Theirs().nie_major_axis.kappa(w.real, w.imag, b, s, q)
        return psi, alpha_x, alpha_y, kappa

    return evaluate


def elliptical_multipole(m: int, r_E: float) -> Reference:
    """MULTIPOLE_ELL in its own frame, with the uniform deflection that its constants of integration add taken out."""

    def evaluate(values: Values, x: np.ndarray, y: np.ndarray):
        kwargs, phi = conventions.lenstronomy_elliptical_multipole(values, m, r_E)
        turn = np.exp(1j * phi)
        w = (x - values["center_x"] + 1j * (y - values["center_y"])) / turn
        psi, alpha_x, alpha_y, kappa = counterpart(["MULTIPOLE_ELL"], lambda _: [kwargs])({}, w.real, w.imag)
        extra = complex(*conventions.uniform_deflection(m, kwargs["a_m"], kwargs["phi_m"], kwargs["q"]))
        alpha = (alpha_x + 1j * alpha_y - extra) * turn
        return psi - (np.conj(extra) * w).real, alpha.real, alpha.imag, kappa

    return evaluate


CASES: dict[str, MassCase] = {
    # Series to the last digit for the laws, so that what is left is the formulas' own error; short ones for XLA, which
    # takes seconds to compile the gradient of a long one (no term of it is unlike another).
    "EPL": MassCase(
        exact=EPL(tolerance=1e-15),
        shipped=EPL(),
        short=EPL(tolerance=0.1),
        nasty=NASTY_ELLIPTICITIES
        | {
            "shallowest": {"gamma": 1.2 + 1e-6},
            "steepest": {"gamma": 2.8 - 1e-6},
            "almost a sheet": {"gamma": 1.001},
            "almost a point mass": {"gamma": 2.999},
            "steepest and flattest": {"gamma": 2.8 - 1e-6, "e2": -0.6 * (1 - 1e-6)},
            "tiny": {"theta_E": 1e-6},
            "large": {"theta_E": 30.0},
        },
        lenstronomy=Lenstronomy(counterpart(["EPL"], lambda v: [v])),
        ranges={"gamma": (1.2, 2.8), "e1": (-0.42, 0.42), "e2": (-0.42, 0.42)},
    ),
    # As flat as a disc seen edge-on, q = 0.05, and slopes from nearly a sheet to nearly a point mass.
    "EPL, flat": MassCase(
        exact=EPL(max_ellipticity=0.91, tolerance=1e-15),
        shipped=EPL(max_ellipticity=0.91),
        short=EPL(tolerance=0.1),
        nasty={
            "q = 0.05": {"e1": -0.9047},
            "q = 0.05, tilted": {"e1": 0.6, "e2": -0.677},
            "q = 0.05, almost a sheet": {"e2": 0.9047, "gamma": 1.001},
            "q = 0.05, almost a point mass": {"e2": 0.9047, "gamma": 2.999},
        },
        lenstronomy=Lenstronomy(counterpart(["EPL"], lambda v: [v])),
        ranges={"gamma": (1.02, 2.98), "e1": (-0.63, 0.63), "e2": (-0.63, 0.63)},
        repeats="EPL",
    ),
    "SIE": MassCase(
        exact=SIE(tolerance=1e-15),
        shipped=SIE(),
        short=SIE(tolerance=0.1),
        nasty=NASTY_ELLIPTICITIES | {"tiny": {"theta_E": 1e-6}, "large": {"theta_E": 30.0}},
        # lenstronomy's own SIE is its NIE with a core of 1e-10 arcsec.
        lenstronomy=Lenstronomy(counterpart(["EPL"], lambda v: [v | {"gamma": 2.0}])),
        ranges={"e1": (-0.42, 0.42), "e2": (-0.42, 0.42)},
    ),
    "Shear": MassCase(
        exact=Shear(),
        nasty={"no shear": {"gamma1": 0.0, "gamma2": 0.0}},
        lenstronomy=Lenstronomy(counterpart(["SHEAR"], lambda v: [v])),
    ),
    "SIS": MassCase(
        exact=SIS(),
        nasty={"tiny": {"theta_E": 1e-6}, "large": {"theta_E": 30.0}},
        lenstronomy=Lenstronomy(counterpart(["SIS"], lambda v: [v])),
    ),
    "NIE": MassCase(
        exact=NIE(),
        nasty=NASTY_ELLIPTICITIES
        | {
            "very flat": {"e1": -0.9, "e2": 0.1},
            "below the switch to the series": {"e1": 0.1 * (1 - 1e-6)},
            "above the switch to the series": {"e1": 0.0, "e2": 0.1 * (1 + 1e-6)},
            "no core": {"s_scale": 0.0, "e1": 0.1},
            "no core, round": {"s_scale": 0.0},
            "tiny core": {"s_scale": 1e-9, "e2": 0.2},
            "core as small as the guard": {"s_scale": 1e-6},
            "core as large as a radius": {"s_scale": 1.0},
            "large core": {"s_scale": 1e3},
            "large": {"theta_E": 30.0},
        },
        lenstronomy=Lenstronomy(isothermal(lambda v: [v])),
        ranges={"e1": (-0.6, 0.6), "e2": (-0.6, 0.6), "s_scale": (1e-4, 5.0)},
    ),
    "DPIE": MassCase(
        exact=DPIE(),
        nasty=NASTY_ELLIPTICITIES
        | {
            "no core": {"Ra": 0.0, "e1": 0.1},
            "core as large as the truncation": {"Ra": 1.0, "Rs": 1.0, "e2": 0.2},
            "core larger than the truncation": {"Ra": 2.0, "Rs": 1.0},
            "tiny": {"Ra": 1e-9, "Rs": 1e-6},
            "truncated far outside": {"Rs": 1e5},
        },
        lenstronomy=Lenstronomy(isothermal(conventions.lenstronomy_dpie)),
        ranges={"e1": (-0.42, 0.42), "e2": (-0.42, 0.42), "Ra": (0.01, 0.5), "Rs": (1.0, 20.0)},
        repeats="NIE",
    ),
    "DPIE, round": MassCase(
        exact=DPIE(),
        # lenstronomy leaves out theta_E (Rs - Ra).
        lenstronomy=Lenstronomy(
            counterpart(["PJAFFE"], lambda v: [conventions.lenstronomy_pjaffe(v)]), potential_offset=True
        ),
        ranges={"e1": (0.0, 0.0), "e2": (0.0, 0.0), "Ra": (0.01, 0.5), "Rs": (1.0, 20.0)},
        parity_only=True,
    ),
    "PointMass": MassCase(
        exact=PointMass(),
        nasty={"tiny": {"theta_E": 1e-6}, "large": {"theta_E": 30.0}},
        lenstronomy=Lenstronomy(counterpart(["POINT_MASS"], lambda v: [v])),
    ),
    "ConvergenceSheet": MassCase(
        exact=ConvergenceSheet(),
        nasty={"critical": {"kappa": 1.0}, "none": {"kappa": 0.0}},
        lenstronomy=Lenstronomy(counterpart(["CONVERGENCE"], lambda v: [conventions.lenstronomy_sheet(v)])),
    ),
    **{
        f"Multipole, m = {m}": MassCase(
            exact=Multipole(m, r_E=1.3),
            nasty={"none": {"a_cos": 0.0, "a_sin": 0.0}, "strong": {"a_cos": -0.3, "a_sin": 0.5}},
            lenstronomy=Lenstronomy(
                counterpart(["MULTIPOLE"], lambda v, m=m: [conventions.lenstronomy_multipole(v, m, r_E=1.3)])
            ),
            repeats=f"EllipticalMultipole, m = {m}",
        )
        for m in (1, 3, 4)
    },
    **{
        f"EllipticalMultipole, m = {m}": MassCase(
            exact=EllipticalMultipole(m, r_E=1.3, tolerance=1e-15),
            shipped=EllipticalMultipole(m, r_E=1.3),
            short=EllipticalMultipole(m, r_E=1.3, tolerance=0.1),
            nasty=NASTY_ELLIPTICITIES | {"none": {"a_cos": 0.0, "a_sin": 0.0}, "strong": {"a_cos": -0.3, "a_sin": 0.5}},
            lenstronomy=Lenstronomy(elliptical_multipole(m, r_E=1.3)),
            # Closer to round lenstronomy loses digits, at last all: see TestMultipole.
            ranges={"e1": (0.1, 0.42), "e2": (-0.42, 0.42)},
            repeats="EllipticalMultipole, m = 3" if m == 1 else None,
        )
        for m in (1, 3, 4)
    },
}


def three_halos(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    names = SIS().parameter_names
    values = {k: rng.normal(0.3 if k == "theta_E" else 0.0, 0.1, (*shape, 3)) for k in names}
    return values | {"present": np.broadcast_to([1.0, 0.5, 1.0], (*shape, 3))}


# Three of one kind in chunks of two. Absent ones have no gradient by definition: test_subhalos.py.
CASES["Subhalos"] = MassCase(exact=Subhalos(SIS(), capacity=3, chunk=2), draw=three_halos)

if find_spec("mass_cases_radial") is not None:
    from mass_cases_radial import CASES as RADIAL

    CASES |= RADIAL
