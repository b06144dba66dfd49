"""Ranks 1 and 2 of 4 talk to rank 0 and die; all that rank 3 says is heard, in order."""

import os
import signal
import sys
import time

from mpi4py import MPI

from acidmpi.mpi.survival import Failures, is_death
from acidmpi.pairing.mortal_wire import MortalWire
from acidmpi.pairing.wire import STOP, Notice

MESSAGES = 50
"""Of each rank to rank 0; the dying ones send as many, and die at once."""

PATIENCE_SECONDS = 20.0
NOTHING_ELSE = 9
"""A tag that nobody uses."""


def main() -> int:
    late = "late" in sys.argv
    comm = MPI.COMM_WORLD.Dup()
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    failures, dead = Failures(comm), set()
    wire = MortalWire(comm, 0, is_death, dead)
    comm.Barrier()
    heard = {rank: [] for rank in range(comm.size)}
    began = time.monotonic()

    def listen() -> None:
        while (message := wire.receive()) is not None:
            heard[message.source].append(message.notice.gradients)

    def mourn() -> None:
        dead.update(failures.news())

    def wait_for(done) -> bool:
        while not done():
            if time.monotonic() - began > PATIENCE_SECONDS:
                return False
            yield_to_others()
        return True

    def yield_to_others() -> None:
        time.sleep(1e-4)
        comm.Iprobe(comm.rank, NOTHING_ELSE)  # MPI must work to hear of deaths
        mourn()
        if not late or len(dead) == 2:  # late: deaths are known before the first look
            listen()

    if comm.rank in (1, 2):
        for number in range(MESSAGES):
            wire.send(0, STOP, Notice(gradients=number))
        time.sleep(0.02 * comm.rank)
        os.kill(os.getpid(), signal.SIGKILL)
    if comm.rank == 3:
        for number in range(MESSAGES):
            wire.send(0, STOP, Notice(gradients=number))
            yield_to_others()
        wait_for(lambda: wire.quiet and heard[0])
        wire.send(0, STOP, Notice(gradients=MESSAGES))
        wait_for(lambda: wire.quiet)
    else:
        well = wait_for(lambda: len(dead) == 2 and len(heard[3]) == MESSAGES)
        print("heard", well, heard[3] == list(range(MESSAGES)), flush=True)
        print("order", all(h == sorted(set(h)) for h in heard.values()), flush=True)
        wire.send(3, STOP, Notice())
        # Its answer, or its end, tells that it has heard; until then this rank stays.
        wait_for(lambda: len(heard[3]) > MESSAGES or 3 in dead)
    sys.stdout.flush()
    os._exit(0)  # MPI may wait for the dead in its end


if __name__ == "__main__":
    main()
