"""Where faults to order enter a rank; without a plan nothing here changes anything."""

from typing import Any

from acidmpi.faults.drill import Drill
from acidmpi.pairing.messages import Kind

EVENT_OF_KIND = {
    int(Kind.REQUEST): "request",
    int(Kind.ACCEPT): "answer",
    int(Kind.BUSY): "answer",
}


def attach_faults(
    drill: Drill,
    wire: Any,
    exchanger: Any,
    pulse: Any,
    averaging: Any,
    survival: Any = None,
) -> None:
    """Replace the functions of one rank at which something is planned."""
    drill.attach(exchanger, "exchange", "exchange")
    drill.attach(exchanger, "on_chunk", "chunk")
    drill.attach(pulse, "_contribution", "heartbeat")
    drill.attach(averaging, "_begin", "average")
    drill.attach(wire, "send", "message")
    if survival is not None:
        drill.attach(survival, "_mend", "recovery")
    if drill.plans("request") or drill.plans("answer"):
        _attach_to_questions(drill, wire)


def _attach_to_questions(drill: Drill, wire: Any) -> None:
    """Requests and answers leave by one function: tell them apart by their kind."""
    send = wire.send

    def hooked(peer: int, kind: int, *rest: Any) -> None:
        event = EVENT_OF_KIND.get(kind)
        if event is not None:
            drill.reach(event)
        send(peer, kind, *rest)

    wire.send = hooked
