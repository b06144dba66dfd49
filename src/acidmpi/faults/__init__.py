"""Faults to order: what a drill or a test wants to go wrong, when and where.

Nothing of it costs anything where no fault is planned: functions are replaced once, when
a rank is put together, and only those at which something is to happen.
"""
