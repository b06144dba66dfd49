"""Runs that differ in nothing but their seed, and names for such groups.

A group is named by the options in which the runs of a report differ. Options that its
method does not use, such as the graph of all-reduce, are no part of its name.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from acidmpi.config.train import USED_BY
from acidmpi.errors import ConfigError
from acidmpi.report.runs import Run

NOT_COMPARED = (
    *("seed", "output", "data_dir", "overwrite", "log_seconds", "deadline_seconds"),
    *("resume", "task", "workload", "ranks", "seeds", "figure", "events"),
)
"""Options that do not make runs different experiments."""

FACETS = ("size", "network", "fault", "topology", "model", "compression")
"""What splits a crowded picture into several, in this order; then any other option."""

SPOKEN = {"size": "{} ranks", "method": "{}", "topology": "{}", "comm_rate": "rate {}"}
"""How a value is written in a name; others as `option value`."""

Value = str | int | float | bool | None
Place = tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Group:
    """Runs of one kind."""

    differs: dict[str, Value]
    """Values of the options in which groups differ; those that it lacks are left out."""

    runs: list[Run]

    @property
    def label(self) -> str:
        """What is special about these runs."""
        return self.label_without(())

    def label_without(self, left_out: Sequence[str]) -> str:
        """The label but for some options."""
        words = [
            _spoken(key, value)
            for key, value in self.differs.items()
            if key not in left_out
        ]
        return ", ".join(words) or "all runs"

    @property
    def finished(self) -> list[Run]:
        """Those that count in the table."""
        return [run for run in self.runs if run.finished]

    @property
    def size(self) -> int:
        """The largest number of ranks."""
        return max(run.size for run in self.runs)


@dataclass(frozen=True)
class Facet:
    """Groups that share a picture."""

    title: str
    members: list[tuple[str, Group]]
    """Each with its label in this picture."""


def make_groups(runs: Sequence[Run]) -> list[Group]:
    """Runs by what differs between them, in the order in which they came.

    Raises:
        ConfigError: they cannot be compared.
    """
    tasks = list(dict.fromkeys(str(_task(run)) for run in runs))
    if len(tasks) > 1:
        examples = ", ".join(
            f"{task} in {next(r.path for r in runs if str(_task(r)) == task)}"
            for task in tasks
        )
        raise ConfigError(
            f"the runs of one report must have the same task, got {examples}; make a "
            "report for each"
        )
    described = [_description(run) for run in runs]
    keys = _differing(described)
    found: dict[str, Group] = {}
    for run, description in zip(runs, described, strict=True):
        differs = {k: description[k] for k in keys if k in description}
        # By their text: to a dict, 1 and true are the same.
        found.setdefault(repr(differs), Group(differs, [])).runs.append(run)
    groups = list(found.values())
    return sorted(groups, key=lambda group: _order(group, keys))


def common_options(runs: Sequence[Run]) -> dict[str, Value]:
    """What all runs have alike."""
    described = [{**_description(run), "task": _task(run)} for run in runs]
    first = described[0]
    same = {k for k in first if all(d.get(k, _MISSING) == first[k] for d in described)}
    return {k: v for k, v in first.items() if k in same and v is not None}


def make_facets(groups: Sequence[Group], most: int) -> list[Facet]:
    """Groups in pictures of at most `most`, if options can divide them so.

    A group that lacks the option which divides, as all-reduce lacks a graph, is in all.
    """
    keys = list(dict.fromkeys(key for group in groups for key in group.differs))
    order = [k for k in FACETS if k in keys] + [k for k in keys if k not in FACETS]
    chosen: list[str] = []
    facets = _divide(groups, chosen)
    for key in order:
        if max((len(facet.members) for facet in facets), default=0) <= most:
            break
        if key == "method":
            continue
        chosen.append(key)
        facets = _divide(groups, chosen)
    return facets


def spread(group: Group, value: Callable[[Run], float | None]) -> tuple[float, ...]:
    """What `value` gives for the finished runs of a group, where it gives anything."""
    found = [value(run) for run in group.finished]
    return tuple(float(each) for each in found if each is not None)


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation of the sample where there are two or more."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), std


_MISSING = object()


def _task(run: Run) -> Any:
    """A simulation calls it its workload."""
    options, summary = run.options, run.summary
    return options.get("task", options.get("workload", summary.get("task")))


def _description(run: Run) -> dict[str, Value]:
    """The options that matter; tables of a file become `table.key`."""
    flat: dict[str, Value] = {"size": run.size}
    for key, value in run.options.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": _plain(v) for inner, v in value.items()}
        else:
            flat[key] = _plain(value)
    method = flat.get("method")
    return {
        key: value
        for key, value in flat.items()
        if key not in NOT_COMPARED and method in USED_BY.get(key, (method,))
    }


def _plain(value: Any) -> Value:
    return value if isinstance(value, Value) else str(value)


def _differing(described: Sequence[dict[str, Value]]) -> list[str]:
    """Options that not all have alike; the method and the graph first.

    Where one run has an option and another, that could use it, does not set it, both
    get a value: None.
    """
    keys = list(dict.fromkeys(key for each in described for key in each))
    for key in keys:
        for each in described:
            if each.get("method") in USED_BY.get(key, (each.get("method"),)):
                each.setdefault(key, None)
    differing = [k for k in keys if len({repr(d[k]) for d in described if k in d}) > 1]
    first = [k for k in ("size", "method", "topology", "comm_rate") if k in differing]
    return first + [k for k in differing if k not in first]


def _order(group: Group, keys: Sequence[str]) -> list[tuple[bool, float, str]]:
    """Numbers by their size, words by their letters, those without a value first."""
    found = []
    for key in keys:
        value = group.differs.get(key)
        number = value if isinstance(value, int | float) else 0.0
        found.append((value is not None, float(number), str(value)))
    return found


def _spoken(key: str, value: Value) -> str:
    if value is None:
        return f"no {key}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return SPOKEN.get(key, key + " {}").format(text)


def _divide(groups: Sequence[Group], keys: Sequence[str]) -> list[Facet]:
    """One facet for each combination of values of `keys` that some group has.

    A group that lacks some of them is in all facets that its others permit; where there
    is none, as for all-reduce with more ranks than any graph, it has one of its own.
    """
    whole = [g for g in groups if all(k in g.differs for k in keys)]
    places = dict.fromkeys(_place(g, keys) for g in whole)
    for group in groups:
        if not any(_belongs(group, place) for place in places):
            places[_place(group, keys)] = None
    return [_facet(groups, place) for place in places]


def _place(group: Group, keys: Sequence[str]) -> Place:
    """What the group has of `keys`."""
    return tuple((k, group.differs[k]) for k in keys if k in group.differs)


def _belongs(group: Group, place: Place) -> bool:
    return all(group.differs.get(k, v) == v for k, v in place)


def _facet(groups: Sequence[Group], place: Place) -> Facet:
    said = [k for k, _ in place]
    return Facet(
        ", ".join(_spoken(k, v) for k, v in place),
        [(g.label_without(said), g) for g in groups if _belongs(g, place)],
    )
