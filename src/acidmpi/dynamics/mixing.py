"""Mixing of x and x_tilde in closed form, and jumps carried through it.

theta is the integral of eta over time. Mixing for an elapsed theta is
x <- x + w (x_tilde - x), x_tilde <- x_tilde + w (x - x_tilde), old values on the right,
with w = mixing_weight(theta). It keeps x + x_tilde and shrinks their difference by
exp(-2 theta); it is linear and a semigroup, so it may be read ahead of the state, put
off, and undone.
"""

import math


def mixing_weight(theta_elapsed: float) -> float:
    """Share of `x_tilde` that flows into `x`: (1 - exp(-2 theta)) / 2.

    Negative for a negative `theta_elapsed`, which undoes as much mixing.
    """
    return -0.5 * math.expm1(-2.0 * theta_elapsed)


def carried_jump(
    alpha: float, alpha_tilde: float, theta_state_minus_theta_chunk: float
) -> tuple[float, float]:
    """Shares (a, b) of a difference taken at one theta, for a state at another.

    `x -= a m; x_tilde -= b m` at the state's theta does what `x -= alpha m;
    x_tilde -= alpha_tilde m` would have done at the snapshot's theta, mixed from there
    to the state: the pair (alpha, alpha_tilde) is itself mixed. Since snapshots only
    read, the state may be behind its snapshot (a negative argument); undoing mixing
    magnifies rounding by exp(-2 theta), so mix a state that is far behind first.
    """
    flow = mixing_weight(theta_state_minus_theta_chunk) * (alpha_tilde - alpha)
    return alpha + flow, alpha_tilde - flow
