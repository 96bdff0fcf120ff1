"""The interval of a share that was counted."""

import math


def wilson(successes: float, n: int) -> list[float]:
    """68 % interval of a share of n (Wilson 1927, J. Am. Stat. Assoc. 22, 209), which stays within 0 and 1.

    Example:
        >>> [round(end, 3) for end in wilson(97, 100)]
        [0.948, 0.983]
    """
    share = successes / n
    center = (share + 1 / (2 * n)) / (1 + 1 / n)
    half = math.sqrt(share * (1 - share) / n + 1 / (4 * n**2)) / (1 + 1 / n)
    return [max(0.0, center - half), min(1.0, center + half)]
