"""What the neural source and its flow are worth: the same lenses, fitted with something else instead (figures F6)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflens.inference.calibration import theta_E_error

_RESAMPLES = 2000
_F1, _F3 = "theta_E: median of abs(error)", "chi^2 in the arcs"
NAMES = {"flow": "the flow prior", "normal": "N(0, I)", "sersic": "a Sersic profile"}
"""In words, what mocks are fitted with: `tflens.inference.mock_lenses.SOURCES`."""


def gains(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Records of F6: a figure of fits with another source over that of fits with the flow prior, the same lenses.

    Above 1 the flow is better. Lenses without a fit in either are left out of the pair, and `fits` counts the others.
    The interval is the central 68 % of resampled lenses (pairs stay together), which many figures of few lenses need.

    Args:
        results: of `tflens.inference.calibration.compare`, for each source the same lenses in the same order.

    Returns:
        Two records, of F1 (median) and F3, for each source but the flow; none without the flow.
    """
    records = []
    for other in (name for name in NAMES if name != "flow" and name in results and "flow" in results):
        pairs = [
            pair
            for pair in zip(results["flow"], results[other], strict=True)
            if not any("no_fit" in one for one in pair)
        ]
        if not pairs:
            continue
        for figure, of in ((_F1, lambda result: abs(theta_E_error(result))), (_F3, _chi2_arcs)):
            values = np.array([[of(result) for result in pair] for pair in pairs], float)
            records.append(
                {
                    "id": "F6",
                    "figure": figure,
                    "over": other,
                    "value": float(_ratio(values)),
                    "spread": _resampled(values),
                    "null": 1.0,
                    "reach": 1.0,
                    "beat": 1.3,
                    "fits": len(pairs),
                }
            )
    return records


def _chi2_arcs(result: Mapping[str, Any]) -> float:
    # A fit that found no arcs at all has no chi^2 in them.
    return np.nan if result["chi2_arcs"] is None else result["chi2_arcs"]


def _ratio(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of the medians over lenses, `[..., lenses, 2]`: the other's over the flow's."""
    middle = np.nanmedian(values, -2)
    return middle[..., 1] / middle[..., 0]


def _resampled(values: NDArray[np.floating]) -> list[float]:
    chosen = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    return [float(end) for end in np.nanquantile(_ratio(values[chosen]), [0.16, 0.84])]
