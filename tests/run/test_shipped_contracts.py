"""The suite inside the package, as a user runs it on a cluster: without this repository."""

import pytest


@pytest.mark.parametrize("ranks", [2])
def test_the_suite_of_the_package_runs_by_itself(run_ranks, tmp_path, ranks):
    """Kernels are left out here: tests/contract runs them."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    arguments = ["--with-mpi", "--pyargs", "acidmpi.testing", "-k", "not kernels"]
    done = run_ranks(
        ranks,
        *("-m", "pytest", "-c", str(tmp_path / "pytest.ini"), "-p", "no:cacheprovider"),
        *arguments,
        cwd=tmp_path,
        timeout_seconds=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == ranks
    for module in ("test_gossip.py", "test_transports.py"):
        assert module in done.stdout
