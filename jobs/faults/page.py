"""The page of a drill: what its runs came to, as tables of Markdown."""

import platform
import statistics
from datetime import date
from pathlib import Path

HEAD = """# Ranks killed at random moments, {when}

Each rank was killed from outside by SIGKILL, at a moment drawn from the time that an
undisturbed run works. `python jobs/faults/drill.py` makes the runs and this page.
Hardware: {hardware}; {ranks} ranks.

- *ended*: runs that ended by themselves, with a result, of all.
- *loss*: on the test set, of the survivors' average. Beside it the undisturbed runs over
  seeds: median (lowest, highest).
  Each rank of `quadratic` has a function of its own, which dies with it: the loss is that
  of the survivors' functions, whose optimum the average has not reached after a death
  just before the end. *digits* are drawn from one set by all ranks.
- *in spread*: runs whose loss is at most the highest of the undisturbed runs.
- *news*: from the kill until the first survivor knew of it. *work*: from the kill until
  the last former neighbour had completed an exchange again. Seconds, medians over all
  deaths; the largest in brackets.
"""


def page(lines: list[dict], ranks: int) -> str:
    """The whole page."""
    ranks_lines = [line for line in lines if line["ranks"] == ranks]
    parts = [HEAD.format(when=date.today(), hardware=hardware(), ranks=ranks)]
    parts.append(deaths_table(ranks_lines))
    parts.append(starts_table(ranks_lines))
    parts.append(cost_table(ranks_lines))
    parts.append(failures(ranks_lines))
    return "\n".join(part for part in parts if part)


def deaths_table(lines: list[dict]) -> str:
    """One row for each task and number of deaths."""
    rows = [
        "| task | killed | runs | ended | loss, median (lowest, highest) | undisturbed "
        "| ratio of medians | news | work | in spread |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task in sorted({line["task"] for line in lines}):
        calm = losses(chosen(lines, task, 0))
        for kills in sorted({line["kills"] for line in lines if line["kills"]}):
            drilled = chosen(lines, task, kills)
            if drilled:
                rows.append(deaths_row(task, kills, drilled, calm))
    return "\n".join(rows) + "\n" if len(rows) > 2 else ""


def deaths_row(task: str, kills: int, lines: list[dict], calm: list[float]) -> str:
    ended = sum(finished(line) for line in lines)
    found = losses(lines)
    ratio = "–"
    if found and calm:
        ratio = f"{statistics.median(found) / statistics.median(calm):.4f}"
    times = [delay for line in lines for delay in delays(line)]
    news, work = (spread([pair[k] for pair in times], most=True) for k in (0, 1))
    return (
        f"| {task} | {kills} | {len(lines)} | {ended} | {spread(found)} | "
        f"{spread(calm)} | {ratio} | {news} | {work} | {within(found, calm)} |"
    )


def within(found: list[float], calm: list[float]) -> str:
    """How many losses are no larger than the largest of undisturbed runs."""
    if not (found and calm):
        return "–"
    return f"{sum(loss <= max(calm) for loss in found)} of {len(found)}"


def starts_table(lines: list[dict]) -> str:
    """What became of runs whose ranks died while they made ready."""
    rows = [
        "## Deaths at the start",
        "",
        "Ranks killed between two moments after all processes are there. *began again*: "
        "runs in which the others did, without the dead. *Started again*: runs in which "
        "all were, because MPI could not start; in brackets launchers that hung and were "
        "ended. In the rest all died later.",
        "",
        "| task | killed | seconds | runs | ended | began again | started again | loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    started = [line for line in lines if line.get("start_seconds")]
    for task, kills in sorted({(line["task"], line["kills"]) for line in started}):
        found = [x for x in started if (x["task"], x["kills"]) == (task, kills)]
        low, high = found[0]["start_seconds"]
        ended = [line for line in found if finished(line)]
        again = sum(began_again(line) for line in ended)
        rows.append(
            f"| {task} | {kills} | {low:g} to {high:g} | {len(found)} | {len(ended)} | "
            f"{again} | {sum(line.get('starts', 1) > 1 for line in ended)} "
            f"({sum(line.get('hung', 0) for line in found)}) | {spread(losses(found))} |"
        )
    return "\n".join(rows) + "\n" if started else ""


def began_again(line: dict) -> bool:
    """Whether somebody died before all were ready."""
    return any(death["at_start"] for death in line["summary"]["dead_ranks"])


def cost_table(lines: list[dict]) -> str:
    """What fault tolerance costs where nothing happens."""
    rows = [
        "## Without faults",
        "",
        "With `--fault-tolerant`, over the same seed without it: median (lowest, highest).",
        "",
        "| task | pairs of runs | gradients a second | seconds of work |",
        "|---|---|---|---|",
    ]
    for task in sorted({line["task"] for line in lines}):
        pairs = calm_pairs(lines, task)
        if pairs:
            speed = [speed_of(on) / speed_of(off) for on, off in pairs]
            wall = [on["wall_seconds"] / off["wall_seconds"] for on, off in pairs]
            rows.append(f"| {task} | {len(pairs)} | {spread(speed)} | {spread(wall)} |")
    return "\n".join(rows) + "\n" if len(rows) > 6 else ""


def failures(lines: list[dict]) -> str:
    """The runs that did not end well, each with its last words."""
    bad = [line for line in lines if not finished(line)]
    rows = ["## Runs that did not end well", ""] if bad else []
    for line in bad:
        status = "ended by the drill" if line["status"] is None else line["status"]
        words = line["said"].splitlines()[-1:] or ["nothing"]
        rows.append(
            f"- `{line['name']}`: {status}; killed {line['killed']}; {words[0]}"
        )
    return "\n".join(rows) + "\n" if rows else ""


def chosen(lines: list[dict], task: str, kills: int) -> list[dict]:
    """Runs with fault tolerance and so many deaths at work."""
    return [
        line
        for line in lines
        if line["task"] == task and line["kills"] == kills and line["tolerant"]
        if not line.get("start_seconds")
    ]


def finished(line: dict) -> bool:
    """Whether it ended by itself, with a result."""
    summary = line["summary"]
    return (
        line["status"] is not None
        and summary is not None
        and summary["stop_reason"] == "finished"
    )


def losses(lines: list[dict]) -> list[float]:
    """Test losses of the runs that have one."""
    found = [line["summary"]["test_loss"] for line in lines if finished(line)]
    return [loss for loss in found if loss is not None]


def delays(line: dict) -> list[tuple[float, float]]:
    """Of each death that survivors told of: seconds to the news, and to normal work."""
    found = []
    for death in line["summary"]["dead_ranks"] if finished(line) else []:
        killed = line["killed"].get(
            str(death["rank"]), line["killed"].get(death["rank"])
        )
        if killed is not None and death["recovered_seconds"] is not None:
            news = death["unix_seconds"] - killed
            found.append((news, news + death["recovered_seconds"]))
    return found


def calm_pairs(lines: list[dict], task: str) -> list[tuple[dict, dict]]:
    """Summaries of undisturbed runs of one seed, with and without fault tolerance."""
    calm = [
        line
        for line in lines
        if line["task"] == task and not line["kills"] and finished(line)
    ]
    on = {line["seed"]: line["summary"] for line in calm if line["tolerant"]}
    off = {line["seed"]: line["summary"] for line in calm if not line["tolerant"]}
    return [(on[seed], off[seed]) for seed in sorted(on.keys() & off.keys())]


def speed_of(summary: dict) -> float:
    """Gradients of all ranks a second."""
    return sum(filter(None, summary["gradients"])) / summary["wall_seconds"]


def spread(values: list[float], *, most: bool = False) -> str:
    """Median and extremes."""
    if not values:
        return "–"
    middle = f"{statistics.median(values):.4g}"
    if most:
        return f"{middle} ({max(values):.3g})"
    return f"{middle} ({min(values):.4g}, {max(values):.4g})"


def hardware() -> str:
    """The machine in a few words."""
    cores = len([line for line in _cpuinfo() if line.startswith("processor")])
    names = [
        line.partition(":")[2].strip() for line in _cpuinfo() if "model name" in line
    ]
    return f"{names[0] if names else platform.machine()}, {cores} cores"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
