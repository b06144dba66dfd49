"""Which runs belong together, what they are called, and how pictures are divided."""

from pathlib import Path

import pytest

from acidmpi.errors import ConfigError
from acidmpi.report.groups import common_options, make_facets, make_groups
from acidmpi.report.runs import Run


def run(method, size=4, **options):
    options = {"task": "digits", "method": method, "topology": "ring", **options}
    options = {"comm_rate": 1.0, "seed": 0, **options}
    return Run(Path(f"{method}-{size}"), options, {"size": size}, {})


def labels(runs):
    return [group.label for group in make_groups(runs)]


def test_seeds_and_places_make_no_difference():
    runs = [run("async", seed=i, output=f"x{i}", data_dir=f"d{i}") for i in range(3)]
    (group,) = make_groups(runs)
    assert (group.label, len(group.runs)) == ("all runs", 3)


def test_groups_are_named_by_what_differs_and_sorted_by_numbers():
    runs = [run("async", comm_rate=r) for r in (10.0, 2.0, 1.0)]
    assert labels(runs) == ["rate 1", "rate 2", "rate 10"]
    runs = [run("a2cid2", 16), run("a2cid2", 4), run("async", 4)]
    assert labels(runs) == ["4 ranks, a2cid2", "4 ranks, async", "16 ranks, a2cid2"]


def test_options_that_a_method_does_not_use_are_not_in_its_name():
    runs = [run("async", comm_rate=2.0), run("async"), run("allreduce")]
    assert labels(runs) == ["allreduce", "async, rate 1", "async, rate 2"]
    more = [run("allreduce", topology="ring"), run("allreduce", topology="complete")]
    assert labels(more) == ["all runs"]


def test_an_option_that_only_some_runs_set_is_named_for_the_others_too():
    runs = [run("async"), run("async", network="1gbit")]
    assert labels(runs) == ["no network", "network 1gbit"]


def test_one_and_true_are_different_values():
    runs = [run("async", x=1), run("async", x=True)]
    assert len(make_groups(runs)) == 2


def test_runs_of_different_tasks_are_refused():
    with pytest.raises(
        ConfigError, match="must have the same task, got digits in async-4"
    ):
        make_groups([run("async"), run("async", task="cifar10")])


def test_the_task_of_an_unfinished_simulation_is_its_workload():
    options = {"workload": "averaging", "method": "async", "ranks": 4, "seed": 0}
    finished = Run(Path("a"), options, {"size": 4, "task": "averaging"}, {})
    (group,) = make_groups([finished, Run(Path("b"), options | {"seed": 1}, {}, {})])
    assert len(group.runs) == 2


def test_what_all_have_alike():
    runs = [run("async", epochs=3.0), run("a2cid2", epochs=3.0, clip=1.0)]
    assert common_options(runs) == {
        "size": 4,
        "task": "digits",
        "topology": "ring",
        "comm_rate": 1.0,
        "epochs": 3.0,
    }


def matrix():
    runs = [run("allreduce", size) for size in (4, 8)]
    for size in (4, 8):
        for graph in ("ring", "complete"):
            runs += [
                run("async", size, topology=graph, comm_rate=r) for r in (1.0, 2.0)
            ]
    return make_groups(runs)


def test_few_groups_are_one_picture():
    (facet,) = make_facets(matrix(), 20)
    assert (facet.title, len(facet.members)) == ("", 10)


def test_many_groups_are_divided_and_all_reduce_is_in_every_picture_of_its_size():
    facets = make_facets(matrix(), 3)
    assert [facet.title for facet in facets] == [
        "4 ranks, complete",
        "4 ranks, ring",
        "8 ranks, complete",
        "8 ranks, ring",
    ]
    for facet in facets:
        assert [label for label, _ in facet.members] == [
            "allreduce",
            "async, rate 1",
            "async, rate 2",
        ]
        sizes = {group.differs["size"] for _, group in facet.members}
        assert facet.title.startswith(f"{sizes.pop()} ranks")
        assert not sizes


def test_every_group_is_in_some_picture():
    groups = matrix()
    for most in range(1, 12):
        shown = [g for facet in make_facets(groups, most) for _, g in facet.members]
        assert all(any(group is each for each in shown) for group in groups)


def test_all_reduce_of_a_size_without_graphs_has_a_picture_of_its_own():
    graphs = ("ring", "torus", "complete", "star", "path", "grid", "hypercube")
    runs = [run("allreduce", size) for size in (8, 16)]
    groups = make_groups(runs + [run("async", 8, topology=g) for g in graphs])
    facets = make_facets(groups, 7)
    assert [(f.title, [label for label, _ in f.members]) for f in facets] == [
        *((f"8 ranks, {g}", ["allreduce", "async"]) for g in sorted(graphs)),
        ("16 ranks", ["allreduce"]),
    ]


def test_options_that_no_kind_has_together_leave_no_two_lines_with_one_name():
    codes = ("none", "fp16", "topk", "efsign", "qsgd", "powersgd", "acpsgd", "onebit")
    runs = [run("async", topology=graph) for graph in ("ring", "complete")]
    groups = make_groups(runs + [run("allreduce", compression=c) for c in codes])
    facets = make_facets(groups, 7)
    assert sum(len(facet.members) for facet in facets) >= len(groups)
    for facet in facets:
        assert len({label for label, _ in facet.members}) == len(facet.members) <= 7
