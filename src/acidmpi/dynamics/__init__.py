"""The mathematics of one rank: constants, mixing, carried jumps, arrivals, time."""
