"""Which constants a rank may use now, given what the heartbeats have told it.

The constants stand near divergence, and a rate that is really lower than the one they
were made for carries them over. So they follow the smaller of the asked and the
measured rate, down at once and up slowly, and what is known only from an old heartbeat
is not trusted.
"""

import math

from acidmpi.dynamics.coefficients import BASELINE, Coefficients
from acidmpi.errors import ConfigError

OLD_INTERVALS = 4.0
"""Age of the last heartbeat, in its own interval, from which alpha_tilde is halved."""

LOST_INTERVALS = 8.0
"""Age from which there is no acceleration at all."""


class Governor:
    """Decides the constants of one rank on line; holds no clock and sends nothing.

    Ranks may decide differently at one moment. eta is a rank's own affair, but the two
    ends of an exchange must use one alpha_tilde, the smaller of theirs: otherwise the
    average of x + x_tilde moves by the difference of the two, times m.

    Args:
        at_one: constants at one exchange per rank and unit; `BASELINE` stays so.
        asked_rate: the `comm_rate` asked for.
        raise_share: how much of the asked rate the rate may gain in one heartbeat.
    """

    def __init__(
        self, at_one: Coefficients, asked_rate: float, raise_share: float = 0.1
    ) -> None:
        if not (math.isfinite(asked_rate) and asked_rate >= 0):
            raise ConfigError(
                f"comm_rate must be finite and not negative, got {asked_rate}"
            )
        self._at_one = at_one
        self._asked = asked_rate
        self._step = raise_share * asked_rate
        self._rate: float | None = None

    def change(self, at_one: Coefficients) -> None:
        """The graph has changed, and with it the constants at one exchange a unit."""
        self._at_one = at_one

    @property
    def rate(self) -> float:
        """The rate that eta is made for; 0 until every rank has exchanged enough."""
        return self._rate or 0.0

    def restore(self, rate: float | None) -> None:
        """Go on from a rate that `known_rate` gave."""
        self._rate = rate

    @property
    def known_rate(self) -> float | None:
        """As `rate`, but None until every rank has exchanged enough."""
        return self._rate

    def heartbeat(self, measured_rate: float, everyone_exchanged: bool) -> None:
        """Take in one heartbeat.

        Args:
            measured_rate: mean exchanges per rank and unit, over a window that holds
                enough of them to be steady: noise counts by its lower envelope.
                Anything that is not a positive number means that nothing is known.
            everyone_exchanged: whether every rank has exchanged a few (3) times by now;
                once true, it is remembered.
        """
        known = math.isfinite(measured_rate) and measured_rate > 0
        rate = min(self._asked, measured_rate) if known else 0.0
        if self._rate is not None:
            self._rate = min(rate, self._rate + self._step)
        elif everyone_exchanged:
            self._rate = rate

    def coefficients(self, age_in_intervals: float) -> Coefficients:
        """Constants to use now.

        Args:
            age_in_intervals: time since the last heartbeat, in intervals of heartbeats.
        """
        eta = self._at_one.eta * self.rate
        if eta == 0 or not age_in_intervals < LOST_INTERVALS:
            return BASELINE
        current = self._at_one._replace(eta=eta)
        if age_in_intervals < OLD_INTERVALS:
            return current
        return current._replace(alpha_tilde=max(0.5, current.alpha_tilde / 2))
