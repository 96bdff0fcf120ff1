"""How long and how hard a fit looks."""

from dataclasses import dataclass, field, fields

from tflens.errors import ParameterError
from tflens.inference.samplers import SAMPLERS

STARTS = ("broad", "network")
"""Where a search can begin, see `FitSettings`."""


@dataclass(frozen=True)
class FitSettings:
    """How long and how hard to look; with the observation and the model it determines a fit.

    Args:
        seed: of everything random.
        starts: points from which the optimum is sought.
        search_steps: Adam steps of every start.
        survivors: starts that are polished.
        polish_steps: Levenberg-Marquardt steps of every survivor.
        chains: of Hamiltonian Monte Carlo; islands of sequential Monte Carlo.
        warmup: transitions of each chain that adapt the sampler and are dropped; a variational fit takes five steps
            for each of them, sequential Monte Carlo finds its own number.
        draws: transitions of each chain that are kept; particles of each island.
        rounds: of sampling by "hmc" or "nuts", at the most: as long as the chains disagree on the mass (R-hat above
            1.05, or an effective sample size below 100), a round becomes the warm-up of the next, which draws twice
            as many; unless they are so far apart (R-hat above 1.5) that longer ones would not meet.
        supersampling: samples along each side of a pixel, from the polish on; the search makes do with one.
        sampler: the way from the optimum to the posterior: "hmc"; "nuts", whose trajectories find their own length;
            "smc", sequential Monte Carlo, for several modes and the evidence; "vi-gaussian" and "vi-iaf", variational
            fits of a Gaussian and of a flow, approximate, with a diagnosis of how near they are.
        start: where the search begins: "broad", all over the prior, or "network", for three of four starts where a
            network guesses from the image (`tflens.inference.starter`), so that fewer and shorter ones may do.

    Raises:
        ParameterError: a value is not an integer within its bounds, or there is no such sampler or start.
    """

    seed: int = field(default=0, metadata={"least": 0})
    starts: int = field(default=48, metadata={"least": 1})
    search_steps: int = field(default=240, metadata={"least": 12})
    survivors: int = field(default=8, metadata={"least": 1})
    polish_steps: int = field(default=24, metadata={"least": 1})
    chains: int = field(default=8, metadata={"least": 2})
    warmup: int = field(default=120, metadata={"least": 40})
    draws: int = field(default=300, metadata={"least": 20})
    rounds: int = field(default=3, metadata={"least": 1})
    supersampling: int = field(default=2, metadata={"least": 1})
    sampler: str = "hmc"
    start: str = "broad"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ParameterError(f"FitSettings.start must be one of {', '.join(STARTS)}, got {self.start!r}")
        if self.sampler not in tuple(SAMPLERS):
            raise ParameterError(f"FitSettings.sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        for setting in fields(self):
            if "least" not in setting.metadata:
                continue
            value, least = getattr(self, setting.name), setting.metadata["least"]
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ParameterError(f"FitSettings.{setting.name} must be an integer >= {least}, got {value!r}")


QUICK = FitSettings(starts=8, search_steps=60, survivors=2, polish_steps=12, chains=2, warmup=40, draws=40, rounds=1)
"""For a first look, and for trying things out: the optimum may be found, its intervals mean nothing."""
