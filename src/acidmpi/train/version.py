"""Versions of installed packages."""

from importlib import metadata


def version_of(package: str) -> str:
    """The version of a package as installed, or a remark that it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
