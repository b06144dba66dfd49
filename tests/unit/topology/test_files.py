"""Edge-list files: what is read, and a message with file and line for what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acidmpi.errors import TopologyError
from acidmpi.topology import make_topology
from acidmpi.topology.files import read_edge_list


@pytest.fixture
def edge_list(tmp_path):
    path = tmp_path / "edges.txt"

    def write(text):
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_comments_blank_lines_and_repetitions(edge_list):
    path = edge_list("# a path\n\n0 1\n  2\t1  # any order\n1 0\n")
    topology = make_topology(str(path), 3)
    assert topology.edges == ((0, 1), (1, 2))
    assert topology.weights == (1.0, 1.0)
    assert topology.name == str(path)
    assert not topology.absolute


def test_rates_make_it_absolute(edge_list):
    path = edge_list("0 1 2.5\n1 2 1e-1\n1 0 2.5\n")
    topology = make_topology(path, 3)
    assert topology.weights == (2.5, 0.1)
    assert topology.absolute
    assert topology.rates(1.0).tolist() == pytest.approx([2.5 / 5.2 * 3, 0.1 / 5.2 * 3])


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_what_is_written_is_read(tmp_path_factory, rates, random):
    lines = [f"{rank} {rank + 1} {rate!r}" for rank, rate in enumerate(rates)]
    random.shuffle(lines)
    path = tmp_path_factory.mktemp("lists") / "edges"
    path.write_text("\n".join(lines))
    topology = read_edge_list(path, len(rates) + 1)
    assert topology.weights == tuple(rates)


def test_one_rank_needs_no_edges(edge_list):
    assert make_topology(edge_list("# nobody\n"), 1).edges == ()


def test_a_name_wins_over_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring").write_text("0 1\n1 2\n2 3\n")
    assert len(make_topology("ring", 4).edges) == 4
    assert len(make_topology("./ring", 4).edges) == 3


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("0 1\n1\n", 2, "edges.txt:2: an edge is 'i j' or 'i j rate', got '1'"),
        ("0 1 1 1\n", 2, "edges.txt:1: .*got '0 1 1 1'"),
        ("0 one\n", 2, "edges.txt:1: .*two whole numbers"),
        ("0 1.5\n", 2, "edges.txt:1: .*two whole numbers"),
        ("0 1 fast\n", 2, "edges.txt:1: .*got '0 1 fast'"),
        ("0,1\n", 2, "edges.txt:1"),
        ("# x\n0 0\n", 1, r"edges.txt:2: .*self-loop \(0, 0\)"),
        ("0 -1\n", 2, r"edges.txt:1: ranks count from 0, got \(0, -1\)"),
        ("0 1 0\n", 2, "edges.txt:1: .*positive and finite, got 0.0"),
        ("0 1 -1\n", 2, "got -1.0"),
        ("0 1 nan\n", 2, "got nan"),
        ("0 1 inf\n", 2, "got inf"),
        ("0 1 1\n1 0 2\n", 2, "edges.txt:2: .*rate 2.0, but 1.0 at .*edges.txt:1"),
        ("0 1 1\n1 2\n", 3, "edges.txt:2: either all.*edges.txt:1 has one"),
        ("0 1\n1 2\n", 2, "is one of 3 ranks, got 2; start 3 ranks"),
        ("0 1\n1 2\n", 4, "is one of 3 ranks, got 4; start 3 ranks"),
        ("", 2, "is one of 1 ranks, got 2"),
        ("0 1\n2 3\n", 4, "ranks 2, 3 cannot be reached from rank 0"),
    ],
)
def test_mistakes(edge_list, text, size, message):
    with pytest.raises(TopologyError, match=message):
        make_topology(edge_list(text), size)


def test_missing_file(tmp_path):
    with pytest.raises(TopologyError, match="cannot read"):
        make_topology(tmp_path / "none.txt", 2)
    with pytest.raises(TopologyError, match=r"none.txt' is neither"):
        make_topology(str(tmp_path / "none.txt"), 2)


def test_a_folder_and_a_binary_file(tmp_path):
    with pytest.raises(TopologyError, match="cannot read"):
        make_topology(str(tmp_path), 2)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TopologyError, match="cannot read"):
        make_topology(str(binary), 2)
