"""How findings are shown, and what the status is."""

import json

from acidmpi.doctor.findings import HEALTHY, SICK, Finding, as_json, page, status_of

GOOD = Finding("mpi", "threads", "MPI_THREAD_MULTIPLE", "good")
ADVICE = Finding("machine", "shared memory", "64 MiB", "advice", "give it more")
BAD = Finding("gpu", "devices", "none", "bad", "take --device cpu")


def test_advice_does_not_change_the_status_and_a_failure_does():
    assert status_of([GOOD, ADVICE]) == HEALTHY
    assert status_of([GOOD, BAD]) == SICK


def test_a_page_has_topics_marks_cures_and_a_verdict():
    lines = page([GOOD, ADVICE, BAD]).splitlines()
    assert lines[0] == "mpi"
    assert lines[1] == "  + threads        MPI_THREAD_MULTIPLE"
    assert "  x devices        none" in lines
    assert lines[-5:] == [
        "what to change",
        "  shared memory: give it more",
        "  devices: take --device cpu",
        "",
        "does not work: devices",
    ]


def test_a_page_without_advice_says_that_all_works():
    text = page([GOOD])
    assert "what to change" not in text
    assert text.endswith("all that was asked for works")


def test_machines_get_one_line_with_the_status():
    read = json.loads(as_json([GOOD, BAD]))
    assert (read["schema"], read["status"]) == (1, SICK)
    assert read["findings"][1]["cure"] == BAD.cure
