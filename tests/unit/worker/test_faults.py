"""Where faults to order enter a rank: every function that is replaced is really there."""

from types import SimpleNamespace

import pytest

from acidmpi.checkpoint.keeper import Keeper
from acidmpi.faults.actions import PlannedFault
from acidmpi.faults.drill import Drill
from acidmpi.faults.plan import Plan
from acidmpi.pairing.messages import Kind
from acidmpi.worker.averaging import Averaging
from acidmpi.worker.collecting import Collecting
from acidmpi.worker.exchange import Exchanger
from acidmpi.worker.faults import attach_faults
from acidmpi.worker.pulse import Pulse
from acidmpi.worker.survival import Survival

PLACES = {
    "exchange": ("exchanger", "exchange"),
    "chunk": ("exchanger", "on_chunk"),
    "heartbeat": ("pulse", "_contribution"),
    "average": ("averaging", "_begin"),
    "recovery": ("survival", "_mend"),
}


@pytest.fixture
def parts():
    def nothing(*_):
        return "done"

    return {
        "wire": SimpleNamespace(send=nothing),
        "exchanger": SimpleNamespace(exchange=nothing, on_chunk=nothing),
        "pulse": SimpleNamespace(_contribution=nothing),
        "averaging": SimpleNamespace(_begin=nothing),
        "survival": SimpleNamespace(_mend=nothing),
    }


def attached(parts, event):
    attach_faults(Drill(Plan.of(f"rank=0 at={event}:2 do=raise"), 0, 1), **parts)


@pytest.mark.parametrize("event", PLACES)
def test_each_place_has_its_event(parts, event):
    attached(parts, event)
    part, name = PLACES[event]
    function = getattr(parts[part], name)
    assert function() == "done"
    with pytest.raises(PlannedFault, match=f"at {event} 2"):
        function()


@pytest.mark.parametrize(
    ("event", "kinds", "others"),
    [
        ("request", [Kind.REQUEST], [Kind.ACCEPT, Kind.BUSY]),
        ("answer", [Kind.ACCEPT, Kind.BUSY], [Kind.REQUEST]),
        ("message", list(Kind), []),
    ],
)
def test_messages_are_told_apart(parts, event, kinds, others):
    attached(parts, event)
    send = parts["wire"].send
    for kind in others * 3:
        send(1, kind, None)
    send(1, kinds[0], None)
    with pytest.raises(PlannedFault, match=f"at {event} 2"):
        send(1, kinds[-1], None)


def test_without_a_plan_nothing_is_replaced(parts):
    before = {name: dict(vars(part)) for name, part in parts.items()}
    attach_faults(Drill(Plan(), 0, 1), **parts)
    assert {name: vars(part) for name, part in parts.items()} == before


def test_the_names_are_those_of_the_real_parts():
    for kind, name in (
        (Exchanger, "exchange"),
        (Pulse, "_contribution"),
        (Averaging, "_begin"),
        (Collecting, "_begin"),
        (Survival, "_mend"),
        (Keeper, "_write"),
    ):
        assert callable(getattr(kind, name))
