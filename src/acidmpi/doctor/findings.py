"""What the doctor finds, and how it is shown: pure, no MPI."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["good", "plain", "advice", "bad"]

MARKS: dict[State, str] = {"good": "+", "plain": " ", "advice": "!", "bad": "x"}
HEALTHY, SICK = 0, 1
SCHEMA = 1


@dataclass(frozen=True)
class Finding:
    """One line."""

    topic: str
    name: str
    told: str
    state: State = "plain"
    """`good`: tried, and works; `bad`: asked for, and does not."""

    cure: str = ""
    """What to change."""


def status_of(findings: Sequence[Finding]) -> int:
    """The exit status: whether anything that was asked for does not work."""
    return SICK if any(one.state == "bad" for one in findings) else HEALTHY


def page(findings: Sequence[Finding]) -> str:
    """For people: by topic, cures below, a verdict at the end."""
    width = max(len(one.name) for one in findings)
    lines: list[str] = []
    for topic in dict.fromkeys(one.topic for one in findings):
        lines += ["", topic]
        lines += [_line(one, width) for one in findings if one.topic == topic]
    return "\n".join([*lines[1:], "", *_changes(findings), verdict(findings)])


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    sick = [one.name for one in findings if one.state == "bad"]
    if sick:
        return f"does not work: {', '.join(sick)}"
    return "all that was asked for works"


def as_json(findings: Sequence[Finding]) -> str:
    """For machines: one object on one line."""
    found = [asdict(one) for one in findings]
    return json.dumps(
        {"schema": SCHEMA, "status": status_of(findings), "findings": found}
    )


def _line(one: Finding, width: int) -> str:
    return f"  {MARKS[one.state]} {one.name:<{width}}  {one.told}".rstrip()


def _changes(findings: Sequence[Finding]) -> list[str]:
    advised = [one for one in findings if one.cure and one.state in ("advice", "bad")]
    if not advised:
        return []
    return ["what to change", *(f"  {o.name}: {o.cure}" for o in advised), ""]
