"""Where conventions are converted: from ours to lenstronomy's, PyAutoLens's, caustics' and COOLEST's.

Each function says what differs; where nothing is said, names and meanings are the same. All work on plain numbers.
"""

import math

import numpy as np

Values = dict[str, float]


def axis_ratio_and_angle(e1: float, e2: float) -> tuple[float, float]:
    """q = minor / major and the major axis's angle from +x, counter-clockwise, radians."""
    e = math.hypot(e1, e2)
    return (1 - e) / (1 + e), math.atan2(e2, e1) / 2


# lenstronomy: same names, units and signs for SIS, SIE, EPL, NIE, POINT_MASS and SHEAR.


def lenstronomy_sheet(values: Values) -> Values:
    """CONVERGENCE: `kappa`, about the origin."""
    return {"kappa": values["kappa"], "ra_0": 0.0, "dec_0": 0.0}


def lenstronomy_pjaffe(values: Values) -> Values:
    """PJAFFE (round): its amplitude is the central density without the core's softening, sigma0."""
    theta_E, core, cut = values["theta_E"], values["Ra"], values["Rs"]
    shared = {k: values[k] for k in ("Ra", "Rs", "center_x", "center_y")}
    return {"sigma0": theta_E * (cut - core) / (2 * core * cut), **shared}


def lenstronomy_dpie(values: Values) -> list[Values]:
    """Two NIE, the second with negative theta_E (PJAFFE_ELLIPSE_POTENTIAL is elliptical in the potential instead)."""
    shared = {k: values[k] for k in ("e1", "e2", "center_x", "center_y")}
    return [
        {"theta_E": values["theta_E"], "s_scale": values["Ra"], **shared},
        {"theta_E": -values["theta_E"], "s_scale": values["Rs"], **shared},
    ]


def lenstronomy_multipole(values: Values, m: int, r_E: float) -> Values:
    """MULTIPOLE: amplitude and angle instead of components."""
    a_m, phi_m = amplitude_and_angle(values["a_cos"], values["a_sin"], m)
    return {
        "m": m,
        "a_m": a_m,
        "phi_m": phi_m,
        "r_E": r_E,
        "center_x": values["center_x"],
        "center_y": values["center_y"],
    }


def lenstronomy_elliptical_multipole(values: Values, m: int, r_E: float) -> tuple[Values, float]:
    """MULTIPOLE_ELL, and the angle of its frame.

    lenstronomy's is aligned with the x axis: turn the coordinates (about the centre) by the angle returned, and the
    deflection back. `phi_m` counts from the major axis, ours from +x. For odd m add `uniform_deflection`.
    """
    a_m, phi_m = amplitude_and_angle(values["a_cos"], values["a_sin"], m)
    q, phi = axis_ratio_and_angle(values["e1"], values["e2"])
    return {"m": m, "a_m": a_m, "phi_m": phi_m - phi, "q": q, "r_E": r_E, "center_x": 0.0, "center_y": 0.0}, phi


def uniform_deflection(m: int, a_m: float, phi_m: float, q: float) -> tuple[float, float]:
    """What lenstronomy's MULTIPOLE_ELL deflects more than ours, the same everywhere, in its own frame; 0 for even m.

    The isothermal dipole determines the deflection up to a constant, which only moves the source. lenstronomy sets it
    by constants of integration (with log 2) that vanish for the round lens, ours by dropping them.
    """
    if m % 2 == 0:
        return 0.0, 0.0

    def difference(x: float) -> float:
        # Both potentials' coefficients of r cos phi, for the multipole along the major axis; x = (1 - q) / (1 + q).
        # Along the minor axis: q -> 1/q, so x -> -x.
        q, root, log2 = (1 - x) / (1 + x), math.sqrt(1 - x**2), math.log(2)
        if m == 1:
            theirs = (x * log2 / 4 + (1 - x**2) * math.log1p(x) / (2 * x) - (1 - x) / 2) / 2
            ours = root * math.log1p(-(x**2)) / (4 * x)
        else:
            constant = log2 * (1 + q) ** 2 - 2 * (1 - q) * (1 + q) ** 2 * (1 + log2 / 4) + (1 - q**2) ** 2 / 4
            logarithm = q * (3 + q**2) * (2 * math.log(1 + q) - log2)
            theirs = (logarithm - constant - (1 - q) * (1 + q) ** 2) / (2 * (1 - q**2) ** 2)
            ours = root * (x / 4 - (math.log1p(-(x**2)) + x**2) / (4 * x**2))
        return math.sqrt(q) * theirs - ours

    x = (1 - q) / (1 + q)
    sign = 1 if m == 1 else -1
    return a_m * math.cos(m * phi_m) * difference(x), sign * a_m * math.sin(m * phi_m) * difference(-x)


def amplitude_and_angle(a_cos: float, a_sin: float, m: int) -> tuple[float, float]:
    """a_m and phi_m of a_m cos m (phi - phi_m)."""
    return math.hypot(a_cos, a_sin), math.atan2(a_sin, a_cos) / m


# PyAutoLens: coordinates, centres and components in the order (y, x).


def pyautolens_ell_comps(e1: float, e2: float) -> tuple[float, float]:
    """`ell_comps`: the same (1 - q) / (1 + q), sine first."""
    return e2, e1


def pyautolens_einstein_radius(theta_E: float, gamma: float, e1: float, e2: float) -> float:
    """`einstein_radius` of PowerLaw and Isothermal.

    Its convergence is (3 - gamma) / (1 + q) (einstein_radius / xi)^(gamma - 1) with the major-axis radius
    xi^2 = x^2 + y^2 / q^2. For gamma = 2: theta_E (1 + q) / (2 sqrt q).
    """
    q, _ = axis_ratio_and_angle(e1, e2)
    return theta_E * ((1 + q) / 2) ** (1 / (gamma - 1)) / math.sqrt(q)


def pyautolens_multipole_comps(a_cos: float, a_sin: float, theta_E: float) -> tuple[float, float]:
    """`multipole_comps` of PowerLawMultipole with slope 2: relative to its einstein_radius `theta_E`, sine first."""
    return a_sin / theta_E, a_cos / theta_E


# caustics: angle and axis ratio, `phi` counter-clockwise from +x.


def caustics_epl(values: Values) -> Values:
    """EPL: slope t = gamma - 1, and the scale b of (2 - t) / 2 (b / sqrt(q^2 x^2 + y^2))^t."""
    q, phi = axis_ratio_and_angle(values["e1"], values["e2"])
    return {"q": q, "phi": phi, "b": values["theta_E"] * math.sqrt(q), "t": values["gamma"] - 1}


def caustics_sie(values: Values) -> Values:
    """SIE with core: b sqrt(q) / (2 sqrt(q^2 (x^2 + s^2) + y^2)): the same theta_E, the core along the major axis.

    The potential of caustics lacks the logarithmic term of a core: compare it for s = 0 alone.
    """
    q, phi = axis_ratio_and_angle(values["e1"], values["e2"])
    return {"q": q, "phi": phi, "b": values["theta_E"], "s": values.get("s_scale", 0.0) / math.sqrt(q)}


# COOLEST: angles in degrees from +y towards -x (east of north, east to the left), in (-90, 90].


def coolest_angle(phi: float) -> float:
    """Position angle, degrees, of a direction `phi` radians counter-clockwise from +x."""
    angle = (np.degrees(phi) - 90) % 180
    return float(angle - 180 if angle > 90 else angle)


def coolest_ellipticity(e1: float, e2: float) -> tuple[float, float]:
    """(q, phi); theta_E, gamma and the core radius refer to the intermediate axis, as ours."""
    q, phi = axis_ratio_and_angle(e1, e2)
    return q, coolest_angle(phi)


def coolest_shear(gamma1: float, gamma2: float) -> tuple[float, float]:
    """(gamma_ext, phi_ext)."""
    return math.hypot(gamma1, gamma2), coolest_angle(math.atan2(gamma2, gamma1) / 2)
