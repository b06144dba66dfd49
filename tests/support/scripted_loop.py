"""A loop that does what a test tells it, for those who advance loops."""

import math

from acidmpi.progress import Pace


class ScriptedLoop:
    """Counts how often it is looked at; each look takes a step of the script."""

    def __init__(self, script=()):
        self.script = iter(script)
        self.activity = self.looks = 0
        self.ended = False
        self.failed = None
        self.next = math.inf
        self.pace = Pace.POLL

    def advance(self):
        self.looks += 1
        step = next(self.script, None)
        pace = None if step is None else step(self)
        return self.pace if pace is None else pace

    def seconds_to_next(self):
        return self.next

    def abandon(self, error):
        self.ended, self.failed = True, error


def act(loop):
    loop.activity += 1


def fail(loop):
    raise ZeroDivisionError("planted")
