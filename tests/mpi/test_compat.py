"""Horovod's single operations on ranks: what they give, and what they refuse."""

import time

import numpy as np
import pytest
import torch
from mpi4py import MPI

import acidmpi.compat.horovod as hvd
from acidmpi.compat.operations import agreed
from acidmpi.compat.session import Session
from acidmpi.compat.unsupported import UnsupportedError
from acidmpi.errors import ConfigError, DisagreementError, RemoteError
from acidmpi.tasks.lean import leave_out_compiler

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
FIRST = [sum(range(k + 1)) for k in range(SIZE)]
"""Where rank k's part begins, when it holds k + 1 entries."""

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module", autouse=True)
def crowded():
    leave_out_compiler()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def horovod(crowded):
    """One session for all of them: making it takes longer than a test."""
    hvd.init()
    yield
    hvd.shutdown()


def everyone(make):
    """What all ranks hold, made here."""
    return [make(rank) for rank in range(SIZE)]


def close(mine, right, rtol=1e-6, atol=1e-12):
    """Without torch.testing, which takes a second to import."""
    assert mine.dtype is right.dtype
    np.testing.assert_allclose(
        mine.detach().numpy(), right.detach().numpy(), rtol=rtol, atol=atol
    )


def values(rank, dtype=torch.float64):
    chance = torch.Generator().manual_seed(rank)
    return (torch.rand(3, 2, generator=chance, dtype=torch.float64) * 8).to(dtype)


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reductions(dtype):
    held = torch.stack(everyone(lambda rank: values(rank, dtype))).double()
    mine = values(RANK, dtype)
    expected = {
        hvd.Sum: held.sum(0),
        hvd.Min: held.amin(0),
        hvd.Max: held.amax(0),
        hvd.Average: held.mean(0),
    }
    for op, right in expected.items():
        result = hvd.allreduce(mine, op=op)
        assert result.dtype is dtype
        wanted = right.to(dtype).double()
        close(result.double(), wanted, rtol=1e-2)
        assert torch.equal(mine, values(RANK, dtype))
        if dtype.is_floating_point and dtype.itemsize > 2:
            close(result, right.to(dtype))
    ones = torch.full((2,), 2, dtype=dtype)
    assert hvd.allreduce(ones, op=hvd.Product).tolist() == [2**SIZE] * 2


def test_factors_and_the_old_argument():
    mine = torch.tensor(RANK + 1.0)
    total = SIZE * (SIZE + 1) / 2
    scaled = hvd.allreduce(mine, op=hvd.Sum, prescale_factor=3.0, postscale_factor=0.5)
    assert scaled.item() == total * 1.5
    with pytest.warns(DeprecationWarning, match="op="):
        assert hvd.allreduce(mine, average=False).item() == total
    with pytest.warns(DeprecationWarning, match="op="):
        mean = hvd.allreduce(mine, True)
    assert mean.item() == pytest.approx(total / SIZE)
    with pytest.raises(ConfigError, match="both"):
        hvd.allreduce(mine, average=True, op=hvd.Sum)
    half = hvd.allreduce(mine / 3, compression=hvd.Compression.fp16, op=hvd.Sum)
    assert half.dtype is torch.float32
    assert half.item() == pytest.approx(total / 3, rel=2e-3)


def test_in_place_and_in_groups():
    mine = values(RANK)
    total = sum(everyone(values))
    strided = mine.clone().T
    assert hvd.allreduce_(strided, op=hvd.Sum) is strided
    close(strided, total.T)
    group = hvd.grouped_allreduce([mine, mine * 2], op=hvd.Sum)
    close(group[0], total)
    close(group[1], total * 2)
    pair = [mine.clone(), mine * 2]
    assert hvd.grouped_allreduce_(pair, op=hvd.Sum)[1] is pair[1]
    assert all(map(torch.equal, pair, group))


def test_operations_overlap_and_end_in_any_order():
    handles = [
        hvd.allreduce_async(torch.full((5,), RANK + k), name=f"n{k}", op=hvd.Sum)
        for k in range(6)
    ]
    for k in reversed(range(6)):
        result = hvd.synchronize(handles[k])
        assert result.tolist() == [sum(range(SIZE)) + SIZE * k] * 5
        assert hvd.poll(handles[k])
    handle = hvd.broadcast_async_(torch.tensor([RANK]), SIZE - 1)
    while not hvd.poll(handle):
        pass
    assert hvd.synchronize(handle).item() == SIZE - 1


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool, torch.complex64], ids=str)
def test_gathering_parts_of_different_lengths(dtype):
    def part(rank):
        return (torch.arange(2 * (rank + 1)).reshape(-1, 2) % 3).to(dtype)

    whole = hvd.allgather(part(RANK))
    assert torch.equal(whole, torch.cat(everyone(part)))
    none = hvd.allgather(part(RANK)[: RANK % 2])
    assert torch.equal(none, torch.cat([part(r)[: r % 2] for r in range(SIZE)]))


def test_broadcasts():
    root = SIZE - 1
    mine = values(RANK, torch.bfloat16)
    assert torch.equal(hvd.broadcast(mine, root), values(root, torch.bfloat16))
    assert torch.equal(mine, values(RANK, torch.bfloat16))
    flag = torch.tensor(root == RANK)
    assert hvd.broadcast_(flag, root) is flag
    assert flag.item()
    assert hvd.broadcast_object({"epoch": RANK, "of": [RANK]}) == {
        "epoch": 0,
        "of": [0],
    }
    assert hvd.allgather_object((RANK, "x" * RANK)) == everyone(lambda r: (r, "x" * r))
    with pytest.raises(ConfigError, match="root_rank"):
        hvd.broadcast(mine, SIZE)
    hvd.barrier()


def test_slices_go_where_they_should():
    mine = torch.arange(2 * SIZE) + 100 * RANK
    here = torch.tensor([2 * RANK, 2 * RANK + 1])
    expected = torch.cat(everyone(lambda rank: here + 100 * rank))
    assert torch.equal(hvd.alltoall(mine), expected)
    # Rank r sends k + 1 entries, all equal to r, to rank k.
    splits = [k + 1 for k in range(SIZE)]
    uneven, counts = hvd.alltoall(torch.full((sum(splits), 1), RANK), splits=splits)
    assert counts.tolist() == [RANK + 1] * SIZE
    assert uneven.flatten().tolist() == [
        r for r in range(SIZE) for _ in range(RANK + 1)
    ]


def test_each_keeps_its_part_of_a_reduction():
    mine = torch.arange(SIZE + 1.0)
    right = (mine * SIZE).tensor_split(SIZE)[RANK]
    assert torch.equal(hvd.reducescatter(mine, op=hvd.Sum), right)
    handle = hvd.reducescatter_async(mine, op=hvd.Sum)
    pair = hvd.grouped_reducescatter([mine, mine], op=hvd.Max)
    assert torch.equal(hvd.synchronize(handle), right)
    assert torch.equal(pair[1], mine.tensor_split(SIZE)[RANK])
    pair = hvd.synchronize(hvd.grouped_reducescatter_async([mine, mine]))
    close(pair[0], right / SIZE)
    both = hvd.synchronize(hvd.grouped_allgather_async([mine[:1], mine[1:]]))
    assert torch.equal(both[1], mine[1:].repeat(SIZE))


def test_gradients_flow_through():
    x = values(RANK).requires_grad_()
    weights = values(100 + RANK)
    (hvd.allreduce(x, op=hvd.Sum) * weights).sum().backward()
    close(x.grad, sum(everyone(lambda r: values(100 + r))))
    x.grad = None
    root = SIZE - 1
    (hvd.broadcast(x, root) * weights).sum().backward()
    mean = sum(everyone(lambda r: values(100 + r))) / SIZE
    close(x.grad, mean if root == RANK else mean * 0)
    x.grad = None
    (hvd.allgather(x) * (1.0 + RANK)).sum().backward()
    close(x.grad, torch.full_like(x, (SIZE + 1) / 2))
    y = torch.arange(SIZE * 2.0).requires_grad_()
    (hvd.alltoall(y) * (RANK + 1)).sum().backward()
    assert y.grad.tolist() == [k + 1 for k in range(SIZE) for _ in range(2)]


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
def test_ranks_that_do_different_things_are_told():
    odd = RANK == 1
    with pytest.raises(DisagreementError, match=r"rank 1 has .*allreduce\('b'\)"):
        hvd.allreduce(torch.zeros(2), name="b" if odd else "a")
    with pytest.raises(DisagreementError, match=r"\(3,\)"):
        hvd.allreduce(torch.zeros(3 if odd else 2))
    with pytest.raises(DisagreementError, match="barrier"):
        hvd.barrier() if odd else hvd.allgather(torch.zeros(1))
    assert hvd.allreduce(torch.ones(()), op=hvd.Sum).item() == SIZE


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
@pytest.mark.parametrize(
    "call",
    [
        hvd.grouped_allreduce,
        hvd.grouped_allreduce_,
        hvd.grouped_allgather,
        hvd.grouped_reducescatter,
        lambda group: hvd.synchronize(hvd.grouped_allgather_async(group)),
        lambda group: hvd.synchronize(hvd.grouped_reducescatter_async(group)),
    ],
)
def test_groups_of_different_lengths_are_told(call):
    """And what comes after them is not mixed with them."""
    group = [torch.ones(2)] * (2 if RANK == 1 else 1)
    with pytest.raises(
        DisagreementError, match=r"of 2 tensors, others .* of 1 tensors"
    ):
        call(group)
    assert hvd.allreduce(torch.full((2,), 3.0)).tolist() == [3.0, 3.0]


def test_what_is_not_offered_says_what_to_do():
    one = torch.ones(1)
    with pytest.raises(UnsupportedError, match="use op=Average"):
        hvd.allreduce(one, op=hvd.Adasum)
    with pytest.raises(UnsupportedError, match="split a communicator"):
        hvd.ProcessSet([0])
    with pytest.raises(UnsupportedError, match="GroupNorm"):
        hvd.SyncBatchNorm(3)
    with pytest.raises(UnsupportedError, match="to_dense"):
        hvd.allreduce(one.to_sparse())
    with pytest.raises(UnsupportedError, match="checkpoints"):
        hvd.elastic.run(print)


def test_what_makes_no_sense_is_told():
    with pytest.raises(ConfigError, match=r"tensor.reshape\(1\)"):
        hvd.allgather(torch.tensor(1.0))
    for op in (hvd.Min, hvd.Max):
        with pytest.raises(ConfigError, match="that have an order"):
            hvd.allreduce(torch.ones(2, dtype=torch.complex64), op=op)


ONE = torch.ones(SIZE)
TOLD = r"needs|must be|to_dense"
MISTAKES = {
    "a number": lambda: hvd.allreduce(3.0),
    "an array": lambda: hvd.allreduce(np.ones(2), compression=hvd.Compression.fp16),
    "nothing": lambda: hvd.allgather(None),
    "a scalar": lambda: hvd.allgather(torch.tensor(1.0)),
    "in place": lambda: hvd.broadcast_(5, 0),
    "no rank": lambda: hvd.broadcast(ONE, None),
    "no factor": lambda: hvd.allreduce(ONE, prescale_factor="2"),
    "half entries": lambda: hvd.alltoall(ONE, splits=[0.5] * SIZE),
    "one split": lambda: hvd.alltoall(ONE, splits=SIZE),
    "sparse": lambda: hvd.allreduce(ONE.to_sparse()),
    "no values": lambda: hvd.allgather(ONE.to("meta")),
    "in a group": lambda: hvd.grouped_allreduce([3.0]),
    "no parameters": lambda: hvd.broadcast_parameters(torch.nn.Linear(1, 1), 0),
    "no tensor": lambda: hvd.broadcast_parameters({"a": 3}, 0),
    "no optimizer": lambda: hvd.broadcast_optimizer_state(None, RANK),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_all_ranks_is_told_and_ranks_go_on(mistake):
    with pytest.raises(ConfigError, match=TOLD):
        MISTAKES[mistake]()
    assert hvd.allreduce(ONE, op=hvd.Sum)[0].item() == SIZE


@pytest.mark.skipif(SIZE == 1, reason="there are no others")
@pytest.mark.parametrize(
    "mistake", [m for m in MISTAKES if m not in ("in a group", "no optimizer")]
)
def test_a_mistake_of_one_rank_is_an_error_of_all(mistake):
    """Caught there, it would leave the others waiting, or mix two operations."""
    if RANK == 1:
        with pytest.raises(ConfigError, match=TOLD):
            MISTAKES[mistake]()
    else:
        several = mistake in ("no parameters", "no tensor")
        meant = hvd.broadcast_parameters if several else hvd.broadcast
        with pytest.raises(DisagreementError, match=TOLD):
            meant({"a": ONE} if several else ONE, 0)
    assert hvd.allreduce(ONE, op=hvd.Sum)[0].item() == SIZE


def test_an_object_that_cannot_be_pickled_is_an_error_of_all():
    last = RANK == SIZE - 1
    error = AttributeError if last else RemoteError
    with pytest.raises(error, match="pickle"):
        hvd.allgather_object((lambda: 0) if last else 0)
    assert hvd.allgather_object(RANK) == list(range(SIZE))


@pytest.mark.parametrize("handle", [None, 5, torch.ones(1)])
def test_what_is_no_handle_is_told(handle):
    for call in (hvd.poll, hvd.synchronize):
        with pytest.raises(ConfigError, match="a handle must be"):
            call(handle)


@pytest.mark.parametrize(
    "together",
    [
        lambda: hvd.broadcast_object(RANK),
        lambda: hvd.allgather_object(RANK),
        lambda: hvd.broadcast_parameters({"a": torch.ones(1)}, 0),
        lambda: hvd.broadcast_optimizer_state(plain(), 0),
        lambda: hvd.DistributedOptimizer(plain()).close(),
    ],
)
def test_ranks_may_wait_for_an_operation_before_or_after_another(together):
    time.sleep(0.1 * (RANK > 0))
    handle = hvd.allreduce_async(ONE, op=hvd.Sum)
    if RANK > 0:
        hvd.synchronize(handle)
    together()
    assert hvd.synchronize(handle)[0].item() == SIZE


@pytest.mark.skipif(SIZE == 1, reason="one rank agrees with itself")
def test_an_object_and_a_tensor_do_not_meet():
    with pytest.raises(DisagreementError, match="broadcast_object"):
        hvd.barrier() if RANK else hvd.broadcast_object(3)


def plain():
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)


def test_operators_are_their_numbers_too():
    """Horovod's are plain integers."""
    optimizer = plain()
    [parameter] = optimizer.param_groups[0]["params"]
    optimizer = hvd.DistributedOptimizer(optimizer, op=int(hvd.Sum))
    parameter.sum().backward()
    optimizer.synchronize()
    optimizer.close()
    assert parameter.grad.tolist() == [SIZE] * 2
    with pytest.raises(UnsupportedError, match="op=Max"):
        hvd.DistributedOptimizer(optimizer, op=4)


def test_a_refused_optimizer_is_a_plain_one():
    optimizer = plain()
    [parameter] = optimizer.param_groups[0]["params"]
    with pytest.raises(ConfigError, match="pairs of a name"):
        hvd.DistributedOptimizer(optimizer, [parameter])
    for _ in range(3):
        parameter.sum().backward()
    assert parameter.grad.tolist() == [3.0, 3.0]
    for passes in (0, 1.5, None):
        with pytest.raises(ConfigError, match="whole number"):
            hvd.DistributedOptimizer(optimizer, backward_passes_per_step=passes)


def test_two_models_of_the_same_names_are_two_broadcasts():
    """The second would take the place of the first, which nobody would notice."""
    pairs = [("w", torch.full((2,), float(RANK))) for _ in range(2)]
    with pytest.raises(ConfigError, match="unique, got two called 'w'"):
        hvd.broadcast_parameters(pairs, 0)
    hvd.broadcast_parameters([tensor for _, tensor in pairs], 0)
    assert [tensor.tolist() for _, tensor in pairs] == [[0.0, 0.0]] * 2


@pytest.mark.skipif(SIZE == 1, reason="there are no others")
def test_what_is_called_when_another_rank_has_ended_is_an_error():
    """And what it began and never waited for does not keep that one."""
    here = Session(COMM)
    comm = here.operations.comm
    if RANK == 1:
        here.meet_to_end()
    else:
        here.operations.start("begun", agreed(comm, "begun", 0, 60.0))
        with pytest.raises(DisagreementError, match=r"rank 1 has .* = shutdown"):
            here.meet("called")
        here.meet_to_end()
    here.close()
