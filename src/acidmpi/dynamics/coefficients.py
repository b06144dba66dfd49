"""The constants of the A2CiD2 dynamics, from the spectrum of the graph.

Between events dx = eta (x_tilde - x) dt and dx_tilde = eta (x - x_tilde) dt; an
exchange with difference m does x -= alpha m, x_tilde -= alpha_tilde m.
"""

import math
from typing import NamedTuple

from acidmpi.errors import ConfigError


class Coefficients(NamedTuple):
    """Rate of mixing per unit of time, and the two shares of a difference."""

    eta: float
    alpha: float
    alpha_tilde: float


BASELINE = Coefficients(eta=0.0, alpha=0.5, alpha_tilde=0.5)
"""Plain asynchronous averaging: x_tilde, where it exists, just follows x."""


def acid_coefficients(
    chi_1: float, chi_2: float, safety: float = 1.0, rate: float = 1.0
) -> Coefficients:
    """Constants of the paper, drawn back towards the baseline by `safety`.

    With p the paper's constants eta = 1 / (2 sqrt(chi_1 chi_2)) and
    alpha_tilde = sqrt(chi_1 / chi_2) / 2, the result is eta = safety rate eta_p and
    alpha_tilde = 1/2 + safety (alpha_tilde_p - 1/2).

    The proof of acceleration needs alpha_tilde >= eta chi_1 and
    4 eta alpha_tilde chi_2 <= 1, and the paper meets both with equality: there is no
    room in it for rates below the asked ones, for delays or for exchanges that are not
    Poisson. Along the line above the first holds for every `safety` in [0, 1] and the
    left side of the second is at most `safety`, so the room grows as `safety` falls;
    the proven speed falls in proportion.

    What it does in fact, from the exact second moments of pure averaging on a ring with
    ideal edges: the eta that diverges is, relative to the one given,

        ranks             16     32     64    128
        safety 1         6.8    2.2    1.5    1.3
        safety 0.8        33    3.9    2.6    2.1

    and the mean-square decay at 0.8 is 0.90 (128 ranks) to 0.98 (16) of that at 1. So 1
    is the paper's choice, not a cautious one, and its margin shrinks as the graph
    grows; 0.8 is nearly free where the rates are known to within a factor of 2. Neither
    makes overlapped exchanges or an unbounded delay safe.

    Args:
        chi_1: inverse algebraic connectivity at one exchange per rank and unit.
        chi_2: half the largest effective resistance of an edge, likewise.
        safety: 1 is the paper, 0 the baseline.
        rate: exchanges that a rank really takes part in per unit; scales eta alone.

    Returns:
        The constants; those of the baseline for a single rank (chi_1 = chi_2 = 0) and
        wherever eta is 0, because nothing would draw x_tilde back then.
    """
    _check(chi_1, chi_2, safety, rate)
    if chi_1 == 0 or safety == 0 or rate == 0:
        return BASELINE
    # chi_2 <= chi_1, but the two are computed apart and may meet with rounding.
    paper = max(0.5, 0.5 * math.sqrt(chi_1 / chi_2))
    return Coefficients(
        eta=safety * rate * 0.5 / math.sqrt(chi_1 * chi_2),
        alpha=0.5,
        alpha_tilde=0.5 + safety * (paper - 0.5),
    )


def _check(chi_1: float, chi_2: float, safety: float, rate: float) -> None:
    for name, chi in (("chi_1", chi_1), ("chi_2", chi_2)):
        if not (math.isfinite(chi) and chi >= 0):
            raise ConfigError(f"{name} must be finite and not negative, got {chi}")
    if (chi_1 == 0) != (chi_2 == 0):
        raise ConfigError(
            f"chi_1 and chi_2 are both 0 (one rank) or both positive, got {chi_1} and "
            f"{chi_2}; take them from one spectrum"
        )
    if not 0 <= safety <= 1:
        raise ConfigError(
            f"safety must lie between 0 (baseline) and 1 (the paper), got {safety}"
        )
    if not (math.isfinite(rate) and rate >= 0):
        raise ConfigError(f"rate must be finite and not negative, got {rate}")
