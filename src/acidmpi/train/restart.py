"""Finds the checkpoint that a run goes on from, on all ranks together.

The newest set that is complete and whole on every rank is taken; rank 0 says which sets
were passed over, and why.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from acidmpi.checkpoint.files import Damaged
from acidmpi.checkpoint.keeper import Keeper, say
from acidmpi.checkpoint.sets import Manifest, Sets, newest
from acidmpi.checkpoint.tree import Tree
from acidmpi.config.train import OWN_FOLDER, TrainConfig
from acidmpi.errors import ConfigError
from acidmpi.train.company import Company
from acidmpi.train.folder import CHECKPOINTS
from acidmpi.train.keeping import Restart

IDENTITY = ("task", "model", "method")


def identity_of(config: TrainConfig) -> dict[str, str]:
    """What a run and its checkpoint must have in common."""
    return {name: str(getattr(config, name)) for name in IDENTITY}


def source_of(config: TrainConfig) -> Path | None:
    """The folder of the run to go on from, or None.

    Raises:
        ConfigError: `--resume` stands alone, and so does `--output`.
    """
    if config.resume is None:
        return None
    if config.resume != OWN_FOLDER:
        return Path(config.resume).expanduser()
    if config.output is None:
        raise ConfigError(
            "--resume needs the folder of a run, got none; give it with --output, or "
            "behind --resume to go on in a new folder"
        )
    return config.output


def at_home(config: TrainConfig) -> TrainConfig:
    """The same run; where `--resume` names its own folder, as if it stood alone.

    A new run would remove the checkpoints that this one goes on from.
    """
    if config.resume in (None, OWN_FOLDER) or config.output is None:
        return config
    same = Path(config.resume).expanduser().resolve() == config.output.resolve()
    return replace(config, resume=OWN_FOLDER) if same else config


def find(config: TrainConfig, company: Company) -> Restart | None:
    """What this run goes on from; collective.

    Raises:
        ConfigError: there is no checkpoint that can be used.
    """
    source = company.together(lambda: source_of(config))
    if source is None:
        return None
    sets = Sets(source / CHECKPOINTS)
    said: list[str] = []
    identity = identity_of(config)
    for manifest in company.first(lambda: _in_order(sets)):
        if isinstance(manifest, str):
            said.append(manifest)
            continue
        company.together(partial(_check_identity, manifest, identity, source))
        trees, mistake = _attempt(partial(_read, sets, manifest, company))
        mistakes = [each for each in company.gather(mistake) if each is not None]
        if not mistakes:
            _tell(said, company, f"going on from {sets.folder(manifest.mark.number)}")
            return Restart(manifest, company.rank, company.size, trees or ())
        said += mistakes[:1]
    reasons = company.gather(said)[0]
    company.together(lambda: _none(sets, reasons or ()))
    return None


def open_keeper(
    config: TrainConfig,
    company: Company,
    folder: Path,
    every: int | None,
    restart: Restart | None,
) -> Keeper:
    """This run's keeper; collective."""
    sets = Sets(folder / CHECKPOINTS)
    session = company.first(lambda: secrets.token_hex(8))
    first = company.first(lambda: max(sets.numbers(), default=0) + 1)
    return Keeper(
        sets,
        rank=company.rank,
        size=company.size,
        session=session,
        first=first,
        every=every,
        done=0 if restart is None else restart.total_gradients,
        identity=identity_of(config),
    )


def _in_order(sets: Sets) -> list[Manifest | str]:
    """Complete sets, and what is amiss with the others; the newest first."""
    found: list[Manifest | str] = []
    for manifest in newest(sets, found.append):
        found += [manifest]  # between the texts, in order
    return found


def _check_identity(manifest: Manifest, identity: dict[str, str], source: Path) -> None:
    for name, wanted in identity.items():
        found = manifest.identity.get(name)
        if found != wanted:
            raise ConfigError(
                f"--resume goes on with the same --{name}, which is {found} in {source}, "
                f"got {wanted}; start anew without --resume, or change the option"
            )


def _attempt(action: Callable[[], list[Tree]]) -> tuple[list[Tree] | None, str | None]:
    try:
        return action(), None
    except Damaged as error:
        return None, str(error)


def _read(sets: Sets, manifest: Manifest, company: Company) -> list[Tree]:
    """All members' trees; if ranks are as many as then, with this rank's arrays only."""
    same = manifest.members == tuple(range(company.size))
    return [
        sets.read(manifest, rank)
        if not same or rank == company.rank
        else sets.plain(manifest, rank)
        for rank in manifest.members
    ]


def _none(sets: Sets, said: Sequence[str]) -> None:
    reasons = f" ({'; '.join(said)})" if said else ""
    raise ConfigError(
        f"--resume needs a complete checkpoint, found none in {sets.path}{reasons}; "
        "start anew without --resume"
    )


def _tell(said: Sequence[str], company: Company, last: str) -> None:
    if company.rank == 0 and said:
        for text in said:
            say(f"{text}; passed over")
        say(last)
