"""Communication graphs: who exchanges with whom, how often, and how fast it mixes."""

from acidmpi.topology.graph import Topology
from acidmpi.topology.make import make_topology
from acidmpi.topology.repair import repaired
from acidmpi.topology.spectrum import Spectrum, spectrum

__all__ = ["Spectrum", "Topology", "make_topology", "repaired", "spectrum"]
