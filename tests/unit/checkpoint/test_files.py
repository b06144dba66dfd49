"""Files of a checkpoint on disks that take less than they are given."""

import io

import numpy as np
import pytest

from acidmpi.checkpoint import files


class Reluctant(io.BytesIO):
    """A disk that takes at most three bytes at a time."""

    def write(self, data):
        return super().write(bytes(data)[:3])


@pytest.mark.parametrize("block", [4, 7, 1 << 20])
def test_a_write_that_takes_a_part_is_gone_on_with(block, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", block)
    data = np.random.default_rng(0).bytes(100)
    disk, plain = Reluctant(), io.BytesIO()
    sinks = [files._Sink(disk), files._Sink(plain)]
    for sink in sinks:
        sink.write(data[:30])
        sink.write(data[30:])
    assert disk.getvalue() == plain.getvalue() == data
    assert sinks[0].checks() == sinks[1].checks()
