"""Run folders as the trainer leaves them, written by hand."""

import json
import math
from pathlib import Path

import pytest


def options_of(method, **more):
    found = {"task": "digits", "method": method, "topology": "ring", "comm_rate": 1.0}
    return {**found, "seed": 0, "epochs": 2.0, "output": "x", **more}


def write_run(
    folder: Path,
    *,
    method="a2cid2",
    size=4,
    steps=40,
    decay=0.1,
    summary=True,
    stop_reason="finished",
    ranks=None,
    idle_seconds=None,
    **options,
) -> Path:
    """A run in which rank i computes at times 0.1, 0.2, … and exchanges with i ± 1."""
    folder.mkdir(parents=True)
    options = options_of(method, **options)
    text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
    (folder / "config.toml").write_text(text)
    pairs = method in ("a2cid2", "async")
    for rank in range(size) if ranks is None else ranks:
        lines = []
        for step in range(1, steps + 1):
            head = {"schema": 1, "seconds": step / 10, "time": step, "gradients": step}
            loss = math.exp(-decay * step)
            lines.append({**head, "kind": "gradient", "loss": loss, "lr": 0.1})
            if pairs:
                peer = (rank + (1 if (step + rank) % 2 else -1)) % size
                more = {"peer": peer, "sent_bytes": 100, "exchange_seconds": 0.01}
                lines.append({**head, "kind": "exchange", **more})
            if step % 5 == 0:
                beat = {"total_gradients": step * size, "comm_rate": 1.0}
                beat["consensus_distance"] = loss / 10 if pairs else None
                lines.append({**head, "kind": "heartbeat", **beat})
            if step % 10 == 0 and rank == 0:
                test = {"test_loss": 2 * loss, "test_accuracy": 1 - loss}
                lines.append({**head, "kind": "evaluation", **test})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"metrics-{rank}.jsonl").write_text(text)
    if summary:
        known = {
            "schema": 1,
            "task": options["task"],
            "method": method,
            "size": size,
            "seed": options["seed"],
            "stop_reason": stop_reason,
            "dead_ranks": [],
            "test_loss": 0.1 + options["seed"],
            "test_accuracy": 0.9,
            "train_loss": 0.2,
            "consensus_distance": 1e-7 if pairs else None,
            "comm_rate_measured": 0.9 if pairs else None,
            "versions": {"python": "3.11"},
            "gradients": [steps] * size,
            "bytes_sent": [1000 * (1 + rank) for rank in range(size)],
            "idle_seconds": idle_seconds or [0.4] * size,
        }
        (folder / "summary.json").write_text(json.dumps(known))
    return folder


@pytest.fixture
def make(tmp_path):
    def make(name, **options):
        return write_run(tmp_path / name, **options)

    return make
