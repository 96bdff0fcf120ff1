"""Whether chains have converged: rank-normalised split R-hat, and effective sample sizes.

Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021 (Bayesian Analysis 16, 667), as ArviZ computes them.
"""

import warnings
from typing import NamedTuple

import numpy as np

with warnings.catch_warnings():
    # ArviZ announces its version 1 at every import.
    warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
    import arviz as az

# The paper asks for R-hat < 1.01 and an effective sample size (ESS) of 400. At R-hat 1.01 the means of the chains
# scatter by 0.14 posterior sigma, at 1.05 by 0.32: no longer small beside sigma.
R_HAT_GOOD, R_HAT_FAILED = 1.01, 1.05
# Their means scatter by 1.1 posterior sigma: each chain is in a place of its own, and longer ones will not soon meet.
R_HAT_APART = 1.5
# The median's Monte Carlo error, in posterior sigma, is about 1 / sqrt(ESS): 0.05 and 0.1.
ESS_GOOD, ESS_FEW = 400.0, 100.0


class Convergence(NamedTuple):
    """Of each coordinate, `[dim]`.

    Attributes:
        r_hat: infinite for one that never moved.
        bulk, tail: effective sample sizes of the middle and of the 5 and 95 % quantiles.
    """

    r_hat: np.ndarray
    bulk: np.ndarray
    tail: np.ndarray

    @property
    def ess(self) -> np.ndarray:
        """The smaller effective sample size."""
        return np.minimum(self.bulk, self.tail)


def convergence_of(u: np.ndarray) -> Convergence:
    """R-hat and effective sample sizes of draws `[chains, draws, dim]`; draws that are not finite have not converged.

    Example:
        >>> found = convergence_of(np.random.default_rng(0).normal(size=(4, 500, 2)))
        >>> bool((found.r_hat < R_HAT_GOOD).all()), bool((found.ess > ESS_GOOD).all())
        (True, True)
    """
    if not np.isfinite(u).all():
        dim = u.shape[-1]
        return Convergence(np.full(dim, np.inf), np.zeros(dim), np.zeros(dim))
    # A chain that never moved has no R-hat, and so many "effective" draws that only R-hat tells.
    with np.errstate(invalid="ignore", divide="ignore"):
        data = az.convert_to_dataset({"u": u})
        r_hat = np.nan_to_num(az.rhat(data)["u"].to_numpy(), nan=np.inf)
        bulk, tail = (az.ess(data, method=method)["u"].to_numpy() for method in ("bulk", "tail"))
    return Convergence(r_hat, bulk, tail)
