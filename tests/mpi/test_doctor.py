"""The doctor on the ranks of a job: one status, whoever finds what."""

import json

import pytest
from mpi4py import MPI

from acidmpi.doctor import messages
from acidmpi.doctor.cli import main
from acidmpi.transport.host import HostTransport

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
ARGUMENTS = ["--json", "--device", "cpu", "--size-bytes", "100000"]

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(SIZE == 1, reason="a rank alone has processes made for it"),
]


def host_finding(text):
    found = json.loads(text)["findings"]
    return next(one for one in found if one["name"] == "host")


def test_ranks_exchange_and_compare(capsys):
    assert main(ARGUMENTS, COMM) == 0
    text = capsys.readouterr().out
    if RANK:
        assert text == ""
    else:
        finding = host_finding(text)
        assert finding["state"] == "good"
        assert "right bytes" in finding["told"]


class LosesABit(HostTransport):
    """A planted fault: what arrives at the last rank is not what was sent."""

    def post(self, peer, send, receive):
        if peer == SIZE // 2 * 2 - 1:
            send = send.copy()
            send.view("uint8")[-1] ^= 1
        self.kept = send
        return super().post(peer, send, receive)


def test_one_wrong_byte_at_one_rank_is_everyones_status(monkeypatch, capsys):
    monkeypatch.setattr(messages, "HostTransport", LosesABit)
    assert main(ARGUMENTS, COMM) == 1
    text = capsys.readouterr().out
    if RANK == 0:
        finding = host_finding(text)
        assert finding["state"] == "bad"
        assert f"rank {SIZE // 2 * 2 - 1}: wrong bytes" in finding["told"]
