"""Make a wheel smaller: `python jobs/gpu/slim_wheel.py WHEEL`, in place.

Leaves out static libraries, headers, build files, example programs, and all but one of the
copies that a wheel holds where other packages have links (`.so`, `.so.0`, `.so.0.0.0`).
What remains is what a program loads when it runs. `RECORD` is written anew, so that pip
installs and removes it as it does any other.
"""

import re
import sys
import zipfile
from pathlib import Path

UNNEEDED = re.compile(
    r"\.(a|la|pc|cmake|h)$|/include/|/cmake/|/pkgconfig/|/share/"
    r"|perftest|/bin/io_demo|/bin/ucx_read_profile"
)
COPY = re.compile(r"\.so$|\.so\.\d+\.\d+\.\d+$")
LINKED = re.compile(r"(.*\.so)(\.\d+)?(\.\d+\.\d+)?$")


def wanted(names: list[str]) -> set[str]:
    """The files that stay."""
    kept = {name for name in names if not UNNEEDED.search(name)}
    sonames = {name for name in kept if re.search(r"\.so\.\d+$", name)}
    copies = {
        name
        for name in kept
        if COPY.search(name) and any(_of_same(name, other) for other in sonames)
    }
    return kept - copies


def _of_same(name: str, soname: str) -> bool:
    """Whether `soname`, which ends in `.so.N`, is the library `name` under its name."""
    match = LINKED.match(name)
    return match is not None and soname.startswith(match[1] + ".")


def slim(path: Path) -> None:
    """Rewrite the wheel with what is wanted."""
    draft = path.with_suffix(".draft")
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        keep = wanted(old.namelist())
        for entry in old.infolist():
            if entry.filename not in keep:
                continue
            content = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                content = _record(content.decode(), keep).encode()
            new.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    draft.replace(path)


def _record(text: str, keep: set[str]) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.split(",")[0] in keep)


if __name__ == "__main__":
    for word in sys.argv[1:]:
        before = Path(word).stat().st_size
        slim(Path(word))
        after = Path(word).stat().st_size
        print(f"{Path(word).name}: {before / 1e6:.1f} MB, now {after / 1e6:.1f} MB")
