"""Threads: a fair share of the cores, and the user's own choice before it."""

from acidmpi.train.threads import VARIABLE, limit_threads, threads_per_rank


def test_ranks_share_the_cores_and_none_goes_without():
    assert threads_per_rank(cores=16, ranks=4) == 4
    assert threads_per_rank(cores=16, ranks=5) == 3
    assert threads_per_rank(cores=2, ranks=64) == 1


def test_the_users_choice_is_kept():
    environment = {VARIABLE: "3"}
    limit_threads(1, environment)
    assert environment == {VARIABLE: "3"}
    environment = {}
    limit_threads(2, environment)
    assert environment == {VARIABLE: "2"}
