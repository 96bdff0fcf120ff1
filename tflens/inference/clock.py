"""Wall time of the stages of a fit."""

import time


class Clock:
    """Seconds of each stage in `laps`, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Ends a stage; the next one begins."""
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now
