"""Say what pip is about to download: `python describe_downloads.py REPORT`.

REPORT is what `pip install --dry-run --report` wrote. Sizes are asked for without
fetching anything; a size that cannot be learned is left out, and nothing here fails.
"""

import json
import os
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

PATIENCE_SECONDS = 10.0


def main() -> None:
    """Print a few lines about what the report plans."""
    plan = json.loads(Path(sys.argv[1]).read_text())["install"]
    packages = [item for item in plan if "dir_info" not in item["download_info"]]
    if not packages:
        say("nothing to download: everything is there")
        return
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(size_bytes, (url_of(item) for item in packages)))
    say(f"{len(packages)} packages to install; {describe(packages, sizes)}")
    for line in torch_build(packages):
        say(line)


def say(text: str) -> None:
    print(f"acidmpi: {text}", flush=True)


def url_of(item: dict[str, Any]) -> str:
    return str(item["download_info"]["url"])


def size_bytes(url: str) -> int | None:
    """How long the file behind an address is, or None."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "file":
            return Path(url2pathname(parts.path)).stat().st_size
        context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
        request = Request(url, method="HEAD")
        with urlopen(request, timeout=PATIENCE_SECONDS, context=context) as answer:
            return int(answer.headers["Content-Length"])
    except Exception:  # whatever is wrong, the installation itself will tell
        return None


def describe(packages: list[dict[str, Any]], sizes: list[int | None]) -> str:
    """The total, split into what comes over the network and what is here already."""
    here = [url_of(item).startswith("file:") for item in packages]
    known = [size or 0 for size in sizes]
    remote = sum(size for size, local in zip(known, here, strict=True) if not local)
    local = sum(known) - remote
    text = f"at most {megabytes(remote)} to download"
    if local:
        text += f", {megabytes(local)} from files on this machine"
    unknown = sizes.count(None)
    return text + (f" ({unknown} of unknown size not counted)" if unknown else "")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e6:.1f} MB"


def torch_build(packages: list[dict[str, Any]]) -> list[str]:
    """Which torch comes, and how to get another."""
    versions = {
        item["metadata"]["name"]: item["metadata"]["version"] for item in packages
    }
    if "torch" not in versions:
        return []
    nvidia = [name for name in versions if name.lower().startswith(("nvidia", "cuda"))]
    if nvidia:
        build = f"the CUDA build, which brings {len(nvidia)} NVIDIA packages"
    else:
        build = "a build without CUDA packages, for CPUs"
    return [
        f"torch {versions['torch']}: {build}",
        "  for another build set PIP_EXTRA_INDEX_URL to the address that PyTorch's"
        " install page gives for it",
    ]


if __name__ == "__main__":
    main()
