"""Simulated ranks on a virtual clock: what the methods do, without renting a cluster."""
