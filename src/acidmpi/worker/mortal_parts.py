"""The parts of a rank that differ where ranks may die; see `worker.mortal`."""

import math
from collections.abc import Collection
from typing import Any

from acidmpi.clocks import Clock
from acidmpi.dynamics.coefficients import BASELINE, Coefficients, acid_coefficients
from acidmpi.mpi.communicators import Communicators
from acidmpi.mpi.nodes import Node
from acidmpi.mpi.survival import Failures, is_death
from acidmpi.pairing.mortal_wire import MortalWire
from acidmpi.pairing.wire import LARGEST_TEXT_BYTES, Wire
from acidmpi.telemetry.heartbeat import Heartbeat
from acidmpi.worker.averaging import READ_BYTES, Averaging
from acidmpi.worker.collecting import Collecting
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.loop import CommunicationLoop
from acidmpi.worker.membership import Membership
from acidmpi.worker.mortal import MortalLoop
from acidmpi.worker.muster import Muster
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.pulse import Pulse
from acidmpi.worker.state import RankState
from acidmpi.worker.survival import Survival

HEARTBEAT_SECONDS = 0.25
MOST_HEARTBEAT_SECONDS = 2.0


def make_wire(
    comms: Communicators, dead: Collection[int], options: WorkerOptions
) -> Wire:
    """Control messages; those of survivors carry their heartbeats."""
    if not options.fault_tolerant:
        return Wire(comms.control)
    most = max(LARGEST_TEXT_BYTES, 8 * (Pulse.length(comms.control.size) + 1))
    return MortalWire(comms.control, most, is_death, dead)


def make_averaging(
    comms: Communicators,
    options: WorkerOptions,
    state: RankState,
    ledger: Ledger,
    clock: Clock,
    membership: Membership | None,
) -> Averaging | Collecting:
    """Averages in the middle of the run."""
    comm, every = comms.collective, options.average_every
    seconds = options.deadline_seconds
    if membership is None:
        at_once = math.inf if options.logical else READ_BYTES
        return Averaging(comm, state, ledger, every, clock, seconds, at_once)
    return Collecting(comm, membership, state, ledger, every, clock, seconds)


def make_heartbeat(
    comms: Communicators,
    options: WorkerOptions,
    node: Node,
    clock: Clock,
    membership: Membership | None,
) -> Heartbeat | Muster:
    """The sums of all ranks."""
    size, seconds = comms.heartbeat.size, options.deadline_seconds
    asked = HEARTBEAT_SECONDS * max(1.0, node.ranks_per_core / 4)
    interval = min(asked, MOST_HEARTBEAT_SECONDS)
    if membership is None:
        return Heartbeat(comms.heartbeat, Pulse.length(size), interval, seconds, clock)
    return Muster(membership, Pulse.slots(size), interval, seconds, clock)


def make_loop(
    options: WorkerOptions,
    graph: Any,
    membership: Membership | None,
    comms: Communicators,
    metrics: Any,
    **parts: Any,
) -> tuple[Survival | None, CommunicationLoop]:
    """The communication loop, and who takes the dead out of it."""
    if membership is None:
        return None, CommunicationLoop(**parts)
    pulse, averaging = parts["pulse"], parts["averaging"]
    survival = Survival(
        membership=membership,
        detector=Failures(comms.control),
        topology=graph.topology,
        chi=(graph.chi_1, graph.chi_2),
        constants=lambda chi_1, chi_2: _constants(options, chi_1, chi_2),
        comm_rate=options.comm_rate,
        ledger=parts["ledger"],
        machine=parts["machine"],
        demand=parts["demand"],
        clock=parts["clock"],
        metrics=metrics,
    )
    survival.changed = pulse.rewire
    loop = MortalLoop(survival=survival, **parts)
    loop.connect(pulse.heartbeat, averaging)
    loop.watchdog.dead = membership.dead
    return survival, loop


def _constants(options: WorkerOptions, chi_1: float, chi_2: float) -> Coefficients:
    """Those of a graph with these figures, at one exchange a unit."""
    if options.method != "a2cid2":
        return BASELINE
    return acid_coefficients(chi_1, chi_2, options.safety, 1.0)
