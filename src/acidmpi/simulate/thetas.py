"""How far each simulated rank has mixed: theta, the integral of eta over its own time."""

AVERAGING = 0.5
"""Weight of the newest gradient in a rank's own estimate of its unit of time."""


class Thetas:
    """Theta of every rank.

    With one unit of time for all, theta is eta times the time. With local units (what the
    authors' program does) a rank lets eta pass in what it takes for its own gradient: a
    moving average with weight 1/2 of the last ones.

    Args:
        eta: of the mean rank.
        units: mean units of a gradient, by rank.
        local: whether ranks use units of their own.
    """

    def __init__(self, eta: float, units: list[float], local: bool) -> None:
        self._eta = eta
        self._local = local
        self._units = list(units)
        self._since = [(0.0, 0.0)] * len(units)

    def at(self, rank: int, time: float) -> float:
        """Theta of `rank` at `time`."""
        if not self._local:
            return self._eta * time
        theta, since = self._since[rank]
        return theta + self._eta * (time - since) / self._units[rank]

    def learn(self, rank: int, time: float, duration: float) -> None:
        """A gradient of `rank` that took `duration` has ended at `time`."""
        if not self._local:
            return
        self._since[rank] = self.at(rank, time), time
        own = self._units[rank]
        self._units[rank] = own + AVERAGING * (duration - own)

    def all(self, time: float) -> list[float]:
        """Theta of every rank at `time`."""
        return [self.at(rank, time) for rank in range(len(self._units))]
