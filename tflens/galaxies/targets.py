"""The aims of the figures of a galaxy model, and what others have reached."""

from dataclasses import dataclass
from typing import Literal

Band = tuple[float, float]
Verdict = Literal["beat", "reach", "short"]


@dataclass(frozen=True)
class Interval:
    """Where a figure should lie; None is open.

    Example:
        >>> Interval(0.97, 1.03).holds(1.0), Interval(None, 0.06).holds(0.07)
        (True, False)
    """

    low: float | None = None
    high: float | None = None

    def holds(self, *values: float) -> bool:
        """Whether all values lie in it. A value that is not a number lies nowhere."""
        above = self.low is None or min(values) >= self.low
        below = self.high is None or max(values) <= self.high
        return above and below and all(value == value for value in values)

    def to_json(self) -> float | list[float]:
        """Its one end, or both."""
        if self.low is not None and self.high is not None:
            return [self.low, self.high]
        return self.high if self.low is None else self.low

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g}-{self.high:g}"
        return f"<= {self.high:g}" if self.low is None else f">= {self.low:g}"


@dataclass(frozen=True)
class Target:
    reach: Interval
    beat: Interval


def target_of(id: str, snr: float | None = None, over: str = "") -> Target | None:
    """The aim of a figure.

    Args:
        id: G1 to G8, L1 to L4.
        snr: lowest S/N of the galaxies; from 100 on, some figures have an aim of their own.
        over: of L3, the prior that the gain is over.

    Example:
        >>> str(target_of("G2", snr=15).reach), str(target_of("G2", snr=100).reach)
        ('<= 0.21', '<= 0.6')
    """
    if id == "L3" and over.startswith("best mixture"):
        return Target(Interval(low=0.0), Interval(low=0.3))
    if snr is not None and snr >= 100 and id in _BRIGHT:
        return _BRIGHT[id]
    return _TARGETS.get(id)


def verdict(target: Target | None, *values: float) -> Verdict | None:
    """How the values stand to their aim: None if there is none.

    Example:
        >>> verdict(target_of("G5"), 0.08), verdict(target_of("G5"), 0.2)
        ('reach', 'short')
    """
    if target is None:
        return None
    return "beat" if target.beat.holds(*values) else "reach" if target.reach.holds(*values) else "short"


NAMES = {
    "G1": "reduced chi^2",
    "G2": "noiseless residual / sigma",
    "G3": "SSIM",
    "G4": "peak error",
    "G5": "morphology distance",
    "G7": "power spectrum distance",
    "G8": "sharpness, worst k",
    "L1": "C2ST",
    "L2": "sliced W1 / null",
    "L3": "NLL gain, nats",
    "L4": "IWAE gain, nats",
}

ANCHORS = {
    "G3": "0.645 against noisy images (DCGAN VAE)",
    "G4": "0.059 (DCGAN VAE)",
    "G5": "0.084 (flow-VAE, Lanusse et al. 2021); 0.067 (StyleGAN), 0.64 (VAE; Holzschuh et al. 2022)",
    "G7": "0.052 (StyleGAN), 0.244 (VAE; Holzschuh et al. 2022)",
}

# Of a plain first try, S/N 15-50 (1.6 M parameters, 20 minutes of training).
FIRST_TRY = {"G1": "1.010", "G2": "0.213", "G3": "0.964", "G4": "0.092", "L1": "0.78 for N(0, I)"}


def anchor_of(id: str, snr: float | None = None) -> str | None:
    """What is known from elsewhere.

    Example:
        >>> anchor_of("G2", snr=15), anchor_of("G2", snr=100)
        ('0.213 (first try)', None)
    """
    first = f"{FIRST_TRY[id]} (first try)" if id in FIRST_TRY and (snr is None or snr < 100) else None
    return "; ".join(text for text in (first, ANCHORS.get(id)) if text) or None


_TARGETS = {
    "G1": Target(Interval(0.97, 1.03), Interval(0.99, 1.01)),
    "G2": Target(Interval(high=0.21), Interval(high=0.18)),
    "G3": Target(Interval(low=0.965), Interval(low=0.975)),
    "G4": Target(Interval(high=0.08), Interval(high=0.06)),
    "G5": Target(Interval(high=0.09), Interval(high=0.06)),
    "G7": Target(Interval(high=0.10), Interval(high=0.052)),
    "G8": Target(Interval(0.8, 1.25), Interval(0.9, 1.1)),
    "L1": Target(Interval(high=0.55), Interval(high=0.525)),
    "L2": Target(Interval(high=1.5), Interval(high=1.15)),
    "L3": Target(Interval(low=0.0), Interval(low=1.0)),
    "L4": Target(Interval(low=1.0), Interval(low=3.0)),
}

_BRIGHT = {
    "G2": Target(Interval(high=0.6), Interval(high=0.4)),
    "G3": Target(Interval(low=0.98), Interval(low=0.99)),
    "G4": Target(Interval(high=0.04), Interval(high=0.025)),
}
