"""A figure without a window: made with one style, turned into PNG bytes.

Nothing here touches matplotlib's global state (no pyplot, no change of its settings that
outlives a drawing), so a program that draws figures of its own is not disturbed.
"""

import io
import os
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acidmpi.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
"""Of lines and bars; told apart with any colour vision (Okabe and Ito 2008). Their pale
yellow is left out: it does not show on white."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
"""When the colours are used up, they come again with the next of these."""

HEAT = "Blues"
"""From white, nothing, to dark blue, much: one hue whose lightness falls evenly."""

STYLE: Any = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.use_mathtext": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,
}

CURE = "pip install 'acidmpi[report]', or leave the figures out"


def draw(paint: Callable[["Figure"], None], width: float, height: float) -> bytes:
    """A picture as PNG, the same bytes for the same content.

    Args:
        paint: draws on the figure that it is given.
        width: in inches, each of `DPI` pixels.
        height: likewise.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context():
        # A letter that the font does not have becomes a box, not a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def require_matplotlib() -> None:
    """Ask for matplotlib before work is done that would need it.

    Raises:
        ConfigError: it is not installed, or cannot be loaded.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"figures need matplotlib, got {error}; {CURE}") from error


def save(picture: bytes, path: Path) -> None:
    """Put a picture at `path`, whole or not at all; folders are made.

    Raises:
        DataError: it cannot be written there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(picture)
        beside.replace(path)
    except OSError as error:
        raise DataError(
            f"the picture {path} cannot be written: {error.strerror}; free space or "
            "choose another folder"
        ) from error


def colour(index: int) -> str:
    """The colour of the thing of this number."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> Any:
    """The dashes of the line of this number."""
    return DASHES[index // len(COLOURS) % len(DASHES)]


def in_lines(label: str, longest: int, lines: int = 2) -> str:
    """A label, perhaps from a file, as the title of something narrow."""
    parts = textwrap.wrap(label, longest, max_lines=lines, placeholder=" …")
    return "\n".join(shown(part, longest) for part in parts)


def shown(label: str, longest: int = 60) -> str:
    """A label, perhaps from a file, as matplotlib takes it without finding a meaning.

    It is of one line and not too long; a dollar sign begins no formula, and a leading
    underscore does not hide it from the legend.
    """
    text = " ".join(label.split())
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
