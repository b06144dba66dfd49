"""Torch models whose parameters and gradients live in flat buffers."""

from acidmpi.arrays.torch.model import FlatModel as FlatModel
