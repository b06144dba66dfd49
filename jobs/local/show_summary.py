"""Show the result of a run: `python show_summary.py FOLDER`."""

import json
import sys
from pathlib import Path

SHOWN = {
    "task": "task",
    "method": "method",
    "topology": "topology",
    "size": "ranks",
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
    "wall_seconds": "seconds",
    "comm_rate_measured": "exchanges per rank and unit of time",
    "consensus_distance": "consensus distance before the final average",
    "stop_reason": "ended",
}


def main() -> None:
    """Print the figures that a newcomer looks for, and where the rest is."""
    folder = Path(sys.argv[1])
    summary = json.loads((folder / "summary.json").read_text())
    print(f"\nresult ({folder / 'summary.json'})")
    for key, title in SHOWN.items():
        value = summary.get(key)
        text = f"{value:.4g}" if isinstance(value, float) else value
        print(f"  {title:45}{text}")
    print(f"  {'gradients, by rank':45}{summary['gradients']}")
    print(f"  {'exchanges, by rank':45}{summary['exchanges']}\n")


if __name__ == "__main__":
    main()
