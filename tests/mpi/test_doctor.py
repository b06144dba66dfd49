"""The doctor on the ranks of a job: one status, whoever finds what."""

import json
from types import SimpleNamespace

import pytest
from mpi4py import MPI
from support.instant_device import InstantDevice
from support.staying import StayingComm

from acidmpi.doctor import gpus, messages
from acidmpi.doctor import staged as doctor_staged
from acidmpi.doctor.cli import main
from acidmpi.doctor.options import DoctorOptions
from acidmpi.doctor.staged import staged_messages
from acidmpi.errors import ConfigError
from acidmpi.transport.host import HostTransport
from acidmpi.transport.trial.driver import GpuDevice
from acidmpi.transport.trial.parent import Verdict

COMM = StayingComm(MPI.COMM_WORLD)
RANK, SIZE = COMM.rank, COMM.size
ARGUMENTS = ["--json", "--device", "cpu", "--size-bytes", "100000"]

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(SIZE not in (2, 3), reason="pairs, and one that has no peer"),
]


def finding_of(text, name):
    found = json.loads(text)["findings"]
    return next(one for one in found if one["name"] == name)


def test_ranks_exchange_and_compare(capsys):
    assert main(ARGUMENTS, COMM) == 0
    text = capsys.readouterr().out
    if RANK:
        assert text == ""
    else:
        finding = finding_of(text, "host")
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
        finding = finding_of(text, "host")
        assert finding["state"] == "bad"
        assert f"rank {SIZE // 2 * 2 - 1}: wrong bytes" in finding["told"]


def staged(make):
    options = DoctorOptions(size_bytes=100_003)
    (finding,) = staged_messages(COMM, options, make)
    return finding


def test_staged_exchanges_are_compared():
    device = InstantDevice()
    finding = staged(lambda: device)
    assert finding.state == "good"
    if RANK < SIZE // 2 * 2:
        assert device.copied_bytes >= 2 * 100_003


class Spoils(InstantDevice):
    """A planted fault: the first byte of each copy is lost."""

    def copy(self, destination, origin, stream):
        super().copy(destination, origin, stream)
        destination[:1] ^= 0xFF


def test_ranks_with_gpus_try_the_way_by_host_memory(monkeypatch, capsys):
    one = GpuDevice("Imitation 9000", f"GPU-{RANK}", 80 << 30, (9, 0))
    driver = SimpleNamespace(version="13.0", devices=lambda: [one])
    monkeypatch.setattr(gpus, "Driver", lambda: driver)
    monkeypatch.setattr(gpus, "cupy_state", lambda options: [])
    monkeypatch.setattr(gpus, "trial", lambda *_, **__: Verdict(False, "it hung"))
    monkeypatch.setattr(doctor_staged, "gpu_of", lambda local_rank: InstantDevice())
    assert main(["--json", "--size-bytes", "100000"], COMM) == 0
    text = capsys.readouterr().out
    if RANK == 0:
        assert finding_of(text, "staged")["state"] == "good"


def test_a_copy_that_spoils_a_byte_is_noticed_by_all():
    finding = staged(Spoils if RANK == 1 else InstantDevice)
    assert finding.state == "bad"
    assert "arrived wrong" in finding.told


def test_a_rank_without_a_device_leaves_nobody_waiting():
    def refuses():
        raise ConfigError("this GPU is full")

    finding = staged(refuses if RANK == 1 else InstantDevice)
    assert finding.told == "rank 1: this GPU is full"
