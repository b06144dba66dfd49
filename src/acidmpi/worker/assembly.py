"""Builds the parts of one rank and joins them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from acidmpi.checkpoint.keeper import Keeper
from acidmpi.clocks import Clock, WallClock
from acidmpi.dynamics.coefficients import BASELINE, Coefficients, acid_coefficients
from acidmpi.dynamics.governor import Governor
from acidmpi.errors import AcidError
from acidmpi.faults.drill import Drill
from acidmpi.mpi.collectives import broadcast
from acidmpi.mpi.communicators import Communicators
from acidmpi.mpi.nodes import Node
from acidmpi.mpi.reductions import Comm
from acidmpi.pairing.machine import Machine
from acidmpi.pairing.wire import Wire
from acidmpi.telemetry.heartbeat import Heartbeat
from acidmpi.telemetry.sketch import Sketcher
from acidmpi.topology.graph import Topology
from acidmpi.worker.averaging import Averaging
from acidmpi.worker.collecting import Collecting
from acidmpi.worker.driver import InlineDriver, ThreadDriver
from acidmpi.worker.exchange import Exchanger
from acidmpi.worker.faults import attach_faults
from acidmpi.worker.keeping import Cutter, Keeping
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.loop import CommunicationLoop
from acidmpi.worker.membership import Membership
from acidmpi.worker.mortal_parts import (
    make_averaging,
    make_heartbeat,
    make_loop,
    make_wire,
)
from acidmpi.worker.muster import Muster
from acidmpi.worker.options import WorkerOptions
from acidmpi.worker.partners import lag_rate, make_pairing
from acidmpi.worker.place import Place
from acidmpi.worker.pulse import Pulse
from acidmpi.worker.recorder import Recorder
from acidmpi.worker.state import RankState
from acidmpi.worker.survival import Survival
from acidmpi.worker.tally import Tally
from acidmpi.worker.units import LogicalUnits, WallUnits

Array = NDArray[Any]

HOT_SECONDS = 300e-6


@dataclass(frozen=True)
class Graph:
    """A topology and the figures that the constants follow from, at rate 1."""

    topology: Topology
    chi_1: float
    chi_2: float
    active: tuple[bool, ...] | None = None
    """By rank, where the method knows roles."""


@dataclass(frozen=True)
class Parts:
    """What a rank consists of."""

    graph: Graph
    ledger: Ledger
    units: Any
    state: RankState
    recorder: Recorder
    tally: Tally
    wire: Wire
    transport: Any
    exchanger: Exchanger
    averaging: Averaging | Collecting
    demand: Any
    machine: Machine
    pulse: Pulse
    loop: CommunicationLoop
    driver: Any
    quota: int | None
    """Gradients of this rank, where each makes equally many (logical time)."""
    lag_rate: float
    """Exchanges that each of its own gradients calls for; 0: it never waits for any."""
    survival: Survival | None = None
    """Takes the dead out, where ranks may die."""
    cutter: Cutter | None = None
    """Takes this rank's parts of checkpoints; None without them."""


def shared_topology(comm: Comm, options: WorkerOptions) -> Graph:
    """The graph and its spectrum, computed on rank 0 and handed to all (collective)."""
    found: Graph | AcidError | None = None
    if comm.rank == 0:
        try:
            found = _solve(options, comm.size)
        except AcidError as error:
            found = error
    found = broadcast(comm, found, options.deadline_seconds, "the communication graph")
    if isinstance(found, AcidError):
        raise found
    assert found is not None
    return found


def _solve(options: WorkerOptions, size: int) -> Graph:
    from acidmpi.topology.make import make_topology
    from acidmpi.topology.roles import active_ranks
    from acidmpi.topology.spectrum import spectrum

    topology = make_topology(options.topology, size, options.seed)
    found = spectrum(topology)
    active = tuple(active_ranks(topology).tolist()) if options.has_roles else None
    return Graph(topology, found.chi_1, found.chi_2, active)


def assemble(
    comms: Communicators,
    arrays: Sequence[Array],
    options: WorkerOptions,
    graph: Graph,
    where: tuple[Node, Place],
    metrics: Any,
    drill: Drill,
    keeping: Keeping | None = None,
) -> Parts:
    """Join the parts; local to this rank."""
    node, place = where
    site = place.site()
    clock = WallClock()
    rank, size = comms.control.rank, comms.control.size
    quota = _quota(options, size)
    ledger = Ledger(rank, size, None if quota else options.total_gradients)
    units = (
        LogicalUnits() if options.logical else WallUnits(clock, options.unit_seconds)
    )
    state = RankState(
        arrays,
        place.kernels,
        units,
        accelerated=options.method == "a2cid2",
        ration=math.inf if options.logical else _coefficients(options, graph, 1.0).eta,
        site=site,
    )
    recorder = Recorder(metrics, clock, units, ledger)
    tally = Tally(size, recorder)
    membership = Membership(rank, size, clock.now()) if options.fault_tolerant else None
    dead = membership.dead if membership else ()
    wire = drill.wire(make_wire(comms, dead, options))
    transport = drill.transport(place.make_transport(comms.data, site))
    hot = HOT_SECONDS if node.ranks_per_core <= 1 else 0.0
    exchanger = Exchanger(
        state,
        transport,
        place.chunk_bytes,
        clock,
        options.deadline_seconds,
        hot,
        dead,
        place.depth,
    )
    active = None if graph.active is None else graph.active[rank]
    machine, demand = make_pairing(options, graph.topology, rank, units, ledger, active)
    averaging = make_averaging(comms, options, state, ledger, clock, membership)
    beat = make_heartbeat(comms, options, node, clock, membership)
    pulse = _pulse(
        comms,
        options,
        graph,
        beat,
        state,
        ledger,
        tally,
        units,
        averaging,
        clock,
        recorder,
        None if keeping is None else keeping.keeper,
    )
    owners = {
        "state": state,
        "ledger": ledger,
        "units": units,
        "tally": tally,
        "exchanger": exchanger,
        "machine": machine,
        "demand": demand,
        "pulse": pulse,
        "averaging": averaging,
    }
    cutter = (
        None
        if keeping is None
        else Cutter(keeping, owners, state, _scheme(options, size))
    )
    if cutter is not None:
        cutter.restore()
    survival, loop = make_loop(
        options,
        graph,
        membership,
        comms,
        recorder,
        machine=machine,
        wire=wire,
        demand=demand,
        exchanger=exchanger,
        pulse=pulse,
        averaging=averaging,
        ledger=ledger,
        tally=tally,
        clock=clock,
        deadline_seconds=options.deadline_seconds,
        hot_seconds=hot,
        cutter=cutter,
    )
    attach_faults(drill, wire, exchanger, pulse, averaging, survival)
    driver = _driver(options, loop, ledger, node, comms.control)
    return Parts(
        graph=graph,
        ledger=ledger,
        units=units,
        state=state,
        recorder=recorder,
        tally=tally,
        wire=wire,
        transport=transport,
        exchanger=exchanger,
        averaging=averaging,
        demand=demand,
        machine=machine,
        pulse=pulse,
        loop=loop,
        driver=driver,
        quota=quota,
        lag_rate=lag_rate(options, size, active),
        survival=survival,
        cutter=cutter,
    )


def _quota(options: WorkerOptions, size: int) -> int | None:
    if options.total_gradients is None or not options.logical:
        return None
    return math.ceil(options.total_gradients / size)


def _scheme(options: WorkerOptions, size: int) -> str:
    """What ranks must communicate by for what they know of it to be of use later."""
    names = ("topology", "method", "pairing", "comm_rate", "seed")
    told = ", ".join(f"{name} {getattr(options, name)}" for name in names)
    return f"{size} ranks, {told}, logical {options.logical}"


def _coefficients(options: WorkerOptions, graph: Graph, rate: float) -> Coefficients:
    """Constants for a rate of exchanges."""
    if options.method != "a2cid2":
        return BASELINE
    return acid_coefficients(graph.chi_1, graph.chi_2, options.safety, rate)


def _pulse(
    comms: Communicators,
    options: WorkerOptions,
    graph: Graph,
    beat: Heartbeat | Muster,
    state: RankState,
    ledger: Ledger,
    tally: Tally,
    units: Any,
    averaging: Averaging | Collecting,
    clock: Clock,
    recorder: Recorder,
    keeper: Keeper | None,
) -> Pulse:
    asked = _coefficients(options, graph, options.comm_rate)
    steered = asked != BASELINE and not options.logical
    return Pulse(
        heartbeat=beat,
        comm=comms.heartbeat,
        state=state,
        ledger=ledger,
        tally=tally,
        governor=Governor(_coefficients(options, graph, 1.0), options.comm_rate)
        if steered
        else None,
        coefficients=BASELINE if steered else asked,
        units=units,
        fixed_unit=options.unit_seconds is not None,
        sketcher=Sketcher([x.size for x in state.arrays], options.seed),
        averaging=None if options.logical else averaging,
        clock=clock,
        metrics=recorder,
        keeper=keeper,
    )


def _driver(
    options: WorkerOptions,
    loop: CommunicationLoop,
    ledger: Ledger,
    node: Node,
    comm: Comm,
) -> Any:
    if options.progress == "inline":
        return InlineDriver(loop, ledger, node.ranks_per_core)
    return ThreadDriver(loop, ledger, node.ranks_per_core, comm.Get_name())
