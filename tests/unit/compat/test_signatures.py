"""The foreign APIs as they are written down here, against what is offered.

Taken from horovod.torch at 2626dc8 (June 2026) and from acpsgd at ec75a2a (April 2023).
"""

import inspect
import re

import pytest

import acidmpi.compat.acpsgd as acpsgd
import acidmpi.compat.horovod as hvd
from acidmpi.compat.horovod.optimizer import HorovodOptimizer
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import AcidError, ConfigError

SCALES = "prescale_factor=1.0, postscale_factor=1.0"
SET = "process_set=global_process_set"
REDUCE = f"average=None, name=None, op=None, {SCALES}, {SET}"
COMPRESSED = (
    f"average=None, name=None, compression=Compression.none, op=None, {SCALES}, {SET}"
)

HOROVOD = {
    "DistributedOptimizer": (
        "optimizer, named_parameters=None, compression=Compression.none, "
        "backward_passes_per_step=1, op=Average, gradient_predivide_factor=1.0, "
        f"num_groups=0, groups=None, sparse_as_dense=False, {SET}"
    ),
    "ProcessSet": "ranks_or_comm",
    "add_process_set": "process_set",
    "allgather": f"tensor, name=None, {SET}",
    "allgather_async": f"tensor, name=None, {SET}",
    "allgather_object": "obj, name=None",
    "allreduce": f"tensor, {COMPRESSED}",
    "allreduce_": f"tensor, {REDUCE}",
    "allreduce_async": f"tensor, {REDUCE}",
    "allreduce_async_": f"tensor, {REDUCE}",
    "alltoall": f"tensor, splits=None, name=None, {SET}",
    "alltoall_async": f"tensor, splits=None, name=None, {SET}",
    "barrier": SET,
    "broadcast": f"tensor, root_rank, name=None, {SET}",
    "broadcast_": f"tensor, root_rank, name=None, {SET}",
    "broadcast_async": f"tensor, root_rank, name=None, {SET}",
    "broadcast_async_": f"tensor, root_rank, name=None, {SET}",
    "broadcast_object": f"obj, root_rank=0, name=None, {SET}",
    "broadcast_optimizer_state": "optimizer, root_rank, model=None",
    "broadcast_parameters": "params, root_rank",
    "grouped_allgather": f"tensors, name=None, {SET}",
    "grouped_allreduce": f"tensors, {COMPRESSED}",
    "grouped_allreduce_": f"tensors, {REDUCE}",
    "grouped_allreduce_async": f"tensors, {REDUCE}",
    "grouped_allreduce_async_": f"tensors, {REDUCE}",
    "grouped_allgather_async": f"tensors, name=None, {SET}",
    "grouped_reducescatter": (
        f"tensors, name=None, compression=Compression.none, op=Average, {SET}, {SCALES}"
    ),
    "grouped_reducescatter_async": f"tensors, name=None, op=Average, {SET}, {SCALES}",
    "init": "comm=None, process_sets=None",
    "join": "device=-1",
    "poll": "handle",
    "reducescatter": (
        f"tensor, name=None, compression=Compression.none, op=Average, {SET}, {SCALES}"
    ),
    "reducescatter_async": f"tensor, name=None, op=Average, {SET}, {SCALES}",
    "remove_process_set": "process_set",
    "sparse_allreduce_async": f"tensor, name, op, {SET}",
    "start_timeline": "file_path, mark_cycles=False",
    "synchronize": "handle",
}
NULLARY = [
    "ccl_built",
    "cross_rank",
    "cross_size",
    "cuda_built",
    "ddl_built",
    "gloo_built",
    "gloo_enabled",
    "is_homogeneous",
    "is_initialized",
    "local_rank",
    "local_size",
    "mpi_built",
    "mpi_enabled",
    "mpi_threads_supported",
    "nccl_built",
    "rank",
    "rocm_built",
    "shutdown",
    "size",
    "stop_timeline",
]
OTHERS = [
    "Adasum",
    "Average",
    "Compression",
    "HorovodInternalError",
    "Max",
    "Min",
    "Product",
    "Sum",
    "SyncBatchNorm",
    "elastic",
    "global_process_set",
]
ACPSGD = {
    "DistributedOptimizer": "optimizer, named_parameters=None, rank=4, threshold=25",
    "allreduce": "tensor, name=None",
    "broadcast_optimizer_state": "optimizer, root_rank",
    "broadcast_parameters": "params, root_rank",
    "init": "",
    "rank": "",
    "size": "",
}


def written(arguments, names):
    """Parameters as they are written down, with their values."""
    space = {}
    exec(f"def function({arguments}): ...", vars(names), space)
    return parameters(space["function"])


def parameters(function):
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


@pytest.mark.parametrize("name", HOROVOD)
def test_horovod(name):
    assert parameters(getattr(hvd, name)) == written(HOROVOD[name], hvd)


@pytest.mark.parametrize("name", NULLARY)
def test_horovod_without_arguments(name):
    assert parameters(getattr(hvd, name)) == []


def test_nothing_else_is_public():
    assert sorted(hvd.__all__) == sorted([*HOROVOD, *NULLARY, *OTHERS])


@pytest.mark.parametrize("name", ACPSGD)
def test_acpsgd(name):
    assert parameters(getattr(acpsgd, name)) == written(ACPSGD[name], acpsgd)


def test_numbers_of_operations_are_horovods():
    names = ("Average", "Sum", "Adasum", "Min", "Max", "Product")
    assert [int(getattr(hvd, name)) for name in names] == list(range(6))


def test_methods_of_the_optimizer():
    kind = inspect.signature(hvd.DistributedOptimizer).return_annotation
    for name in ("synchronize", "step", "zero_grad", "load_state_dict"):
        required = [
            p
            for p in list(inspect.signature(getattr(kind, name)).parameters.values())[
                1:
            ]
            if p.default is p.empty
        ]
        assert len(required) == (name == "load_state_dict")
    assert parameters(kind.skip_synchronize)[1:] == []
    assert [p[0] for p in parameters(kind.set_backward_passes_per_step)] == [
        "self",
        "passes",
    ]


# -- what needs no ranks ------------------------------------------------------------


def test_answers_about_libraries():
    assert hvd.mpi_built()
    assert hvd.mpi_enabled()
    assert hvd.nccl_built() == 0
    none = ("gloo", "ddl", "ccl", "cuda", "rocm")
    assert not any(getattr(hvd, f"{name}_built")() for name in none)
    assert not hvd.gloo_enabled()


@pytest.mark.parametrize(
    "name", ["rank", "size", "local_rank", "cross_size", "barrier"]
)
def test_init_comes_first(name):
    assert not hvd.is_initialized()
    with pytest.raises(ValueError, match=r"call init\(\)"):
        getattr(hvd, name)()


def test_errors_are_what_scripts_catch():
    with pytest.raises(NotImplementedError, match="start the job again"):
        hvd.elastic.run(lambda state: state)
    with pytest.raises(NotImplementedError, match="split a communicator"):
        hvd.add_process_set([0])
    with pytest.raises(NotImplementedError, match="split a communicator"):
        hvd.init(process_sets=[hvd.global_process_set])
    with pytest.raises(ConfigError, match="COMM_WORLD"):
        hvd.init(comm="everyone")
    with pytest.raises(UnsupportedError, match="profiler"):
        hvd.start_timeline("file")
    assert hvd.HorovodInternalError is AcidError
    assert not hasattr(hvd.elastic, "__wrapped__")


def test_the_optimizer_builds_on_public_names_of_ours():
    source = inspect.getsource(HorovodOptimizer)
    used = set(re.findall(r"\b(?:self|super\(\))\.(_[a-z]\w*)", source))
    assert used <= {"_horovod", *vars(HorovodOptimizer)}
