"""An error of one rank when nobody listens any more: the others do not wait for it."""

import pytest
from support import mpirun

DEADLINE_SECONDS = 100


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_an_error_in_the_final_average_ends_the_job(tmp_path, moment):
    arguments = ["-m", "acidmpi.train", "--task", "quadratic", "--epochs", "0.5"]
    arguments += ["--deadline-seconds", DEADLINE_SECONDS, "--output", tmp_path / "run"]
    fault = f"rank=1 at=final:{moment} do=raise"
    with (tmp_path / "said").open("w+") as said:
        job = mpirun.start(3, [*arguments, "--fault", fault], stdout=said, stderr=said)
        with mpirun.ended_at_exit(job):
            assert job.wait(DEADLINE_SECONDS / 2) != 0
        said.seek(0)
        text = said.read()
    assert f"PlannedFault: an error to order at final {moment}" in text
    assert "no progress" not in text
