"""Gradient compression: arrays in, arrays out."""
