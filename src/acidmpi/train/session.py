"""One run, from checked options to its summary, as every rank goes through it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from acidmpi.clocks import Clock
from acidmpi.config.launched import version_of
from acidmpi.config.train import OWN_FOLDER, TrainConfig
from acidmpi.errors import (
    AcidError,
    DataError,
    DiedAtStart,
    Interrupted,
    Preempted,
)
from acidmpi.mpi.nodes import Node
from acidmpi.tasks.registry import load_task, task_defaults
from acidmpi.telemetry.metrics import MetricsWriter, forget_after
from acidmpi.telemetry.summary import RankFigures
from acidmpi.train import devices, folder
from acidmpi.train.archive import Archive
from acidmpi.train.company import Company
from acidmpi.train.compressors import check_compression
from acidmpi.train.course import Course, Scores, Trainer
from acidmpi.train.display import Display, Heir
from acidmpi.train.keeping import Kept, Restart
from acidmpi.train.loop import Loop
from acidmpi.train.outcome import all_deaths, rank_figures, result_rows
from acidmpi.train.plan import Plan, make_plan, resolve
from acidmpi.train.restart import at_home, find, open_keeper
from acidmpi.train.signals import SignalWatch
from acidmpi.train.stalls import StallTeller
from acidmpi.train.threads import limit_threads, threads_per_rank
from acidmpi.train.trainers import make_trainer
from acidmpi.worker.membership import Death

OWN_OPTIONS = ("data_dir", "output", "overwrite", "log_seconds")
"""What ranks may differ in: paths of their machine, and what rank 0 alone acts on."""

EVALUATION_PATIENCE = 20.0
"""How many deadlines the others wait while rank 0 evaluates."""


class Session:
    """A run on one rank.

    Args:
        config: the options, the same on every rank.
        company: the ranks.
        watch: tells of signals.
        display: shows the run.
        clock: where seconds come from.
    """

    def __init__(
        self,
        config: TrainConfig,
        company: Company,
        watch: SignalWatch,
        display: Display,
        clock: Clock,
    ) -> None:
        self._config = config
        self._company = company
        self._watch = watch
        self._display = display
        self._clock = clock
        self._began = clock.now()
        self._place = Path()
        self._archive: Archive | None = None
        self._metrics: MetricsWriter | None = None
        self._kept: Kept | None = None
        self._restart: Restart | None = None
        self._course: Course | None = None
        self._device: int | None = None

    def run(self) -> None:
        """Do all of it; collective.

        Raises:
            Interrupted: a signal ended the run; its summary is written.
            DiedAtStart: ranks have died; those who live can run another session.
            AcidError: the run failed, or could not start.
        """
        try:
            self._run()
        except DiedAtStart:  # there was no run yet
            raise
        except BaseException:
            self._keep_what_is_known("failed")
            raise
        finally:
            self._close()

    def _run(self) -> None:
        self._company.must_agree(common_options(self._config))
        task, plan = self._prepare()
        trainer = self._company.start(lambda: self._trainer(task, plan))
        loss = self._train(trainer, plan)
        written = self._settle(trainer.course.stop_reason)
        self._finish(trainer, loss)
        if trainer.course.stop_reason == "interrupted" and written is not None:
            self._company.orderly = True
            raise Preempted(
                f"preempted; a checkpoint is in {written}: go on with --resume"
            )
        if trainer.course.stop_reason == "interrupted":
            self._company.orderly = True
            raise Interrupted(f"interrupted; what was done is in {self._place}")

    def _prepare(self) -> tuple[Any, Plan]:
        """The task, the work, and the files of the run."""
        company = self._company
        config = resolve(self._config, task_defaults(self._config.task))
        self._config = at_home(config)
        company.together(lambda: check_compression(self._config))
        node = self._share_cores()
        task = company.together(self._load)
        plan = company.together(
            lambda: make_plan(
                self._config, task.samples_per_epoch, company.size, task.defaults.decays
            )
        )
        self._device = company.together(
            lambda: devices.choose(
                self._config, node.local_rank, has_model=task.defaults.uses_torch
            )
        )
        self._restart = find(self._config, company)
        self._place = company.claim(self._make_folder)
        keeper = open_keeper(
            self._config,
            company,
            self._place,
            plan.checkpoint_every,
            self._restart,
        )
        self._kept = Kept(keeper, self._restart)
        company.together(self._open_files)
        self._watch.then(self._hurry)
        return task, plan

    def _share_cores(self) -> Node:
        node = self._company.node()
        limit_threads(threads_per_rank(node.cores, node.local_size))
        return node

    def _load(self) -> Any:
        self._watch.check()
        config, company = self._config, self._company
        return load_task(
            config.task,
            data_dir=config.data_dir,
            model=config.model,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=company.rank,
            size=company.size,
            dirichlet=config.dirichlet,
            heterogeneity=config.heterogeneity,
            subset=config.subset,
        )

    def _make_folder(self) -> Path:
        return folder.create(self._config, datetime.now()).path

    def _make_archive(self, place: folder.RunFolder) -> Archive:
        rank, size = self._company.rank, self._company.size
        return Archive(self._config, place, rank, size, self._clock, self._began)

    def _open_files(self) -> None:
        self._watch.check()
        place = folder.join(self._place)
        if self._company.rank == 0:
            self._label(place)
        path = place.metrics(self._company.rank)
        again = self._config.resume == OWN_FOLDER
        if again and self._restart is not None and self._restart.same:
            forget_after(path, self._restart.own_gradients)
        self._metrics = MetricsWriter(path, append=again)
        if self._config.fault_tolerant and self._archive is None:
            self._archive = self._make_archive(place)  # to be rank 0's successor

    def _label(self, place: folder.RunFolder) -> None:
        """Rank 0 alone: write down what is run here, and remove what is not of it."""
        folder.write_config(place, replace(self._config, resume=None))
        self._archive = self._make_archive(place)
        lost = self._company.lost
        for rank in range(self._company.size, 0 if lost is None else lost.size):
            place.metrics(rank).unlink(missing_ok=True)

    def _trainer(self, task: Any, plan: Plan) -> Trainer:
        self._watch.check()
        comm = self._company.comm
        trainer = make_trainer(
            task,
            comm,
            self._config,
            plan,
            self._metrics,
            self._kept,
            self._device,
            self._company.lost,
        )
        trainer.course.watch_stalls(StallTeller(folder.RunFolder(self._place).stalls))
        self._course = trainer.course
        if self._archive is not None:
            self._archive.course = trainer.course
        if isinstance(self._display, Heir):
            self._display.leads = self._leads
        return trainer

    def _leads(self) -> bool:
        """Whether this rank shows and keeps the results."""
        known = self._company if self._course is None else self._course
        return known.leads or (self._company.leads and bool(self._company.dead))

    def _train(self, trainer: Trainer, plan: Plan) -> float | None:
        """Returns this rank's recent training loss."""
        loop = Loop(trainer, plan, self._watch, self._display, self._clock, self._kept)
        try:
            loop.run()
        except BaseException:
            self._company.orderly = trainer.course.told
            self._company.clean = trainer.course.clean
            raise
        finally:
            if self._archive is not None:
                self._archive.scores = loop.scores
        return loop.train_loss

    def _finish(self, trainer: Trainer, loss: float | None) -> None:
        company, course = self._company, trainer.course
        if course.stop_reason == "finished":
            scores = company.first(lambda: self._evaluate(trainer), EVALUATION_PATIENCE)
            if self._archive is not None:
                self._archive.scores = scores
        company.together(self._close_metrics)
        ranks = company.gather(rank_figures(course.statistics()))
        losses = [each for each in company.gather(loss) if each is not None]
        common = sum(losses) / len(losses) if losses else None
        told = company.gather(course.statistics().deaths)
        company.first(lambda: self._conclude(course, ranks, common, told))

    def _settle(self, reason: str) -> Path | None:
        """Wait until checkpoints are written; the last one's folder if there is one.

        Raises:
            DataError: a rank could not write its part of the last one, and the run is
                not at its end.
        """
        if self._kept is None:
            return None
        keeper, company = self._kept.keeper, self._company
        everyone = company.gather(keeper.settle())
        told = {rank: one for rank, one in enumerate(everyone) if one is not None}
        ended, kept = (sum(part) for part in zip(*told.values(), strict=True))
        keeper.hear(ended, kept, list(told))
        company.gather(keeper.settle())  # rank 0 has sealed the set
        if not keeper.last:
            return None
        # At the planned end the model is there, and each has said what it could not.
        if kept < len(told) and reason != "finished":
            self._bemoan([rank for rank, (_, whole) in told.items() if not whole])
        return keeper.folder

    def _bemoan(self, ranks: Sequence[int]) -> None:
        """These could not write their part of the last checkpoint."""
        self._company.orderly = True
        raise DataError(
            f"the last checkpoint could not be written by ranks {ranks}; free some "
            "space, and go on from the one before with --resume"
        )

    def _evaluate(self, trainer: Trainer) -> Scores:
        trainer.mourn(self._company.dead)
        scores = trainer.scores()
        trainer.course.record(scores)
        return scores

    def _conclude(
        self,
        course: Course,
        ranks: list[RankFigures | None],
        loss: float | None,
        told: Sequence[Sequence[Death] | None],
    ) -> None:
        """The last part of rank 0, or its successor: the summary, on disk and screen."""
        assert self._archive is not None
        run = self._archive.figures(course.statistics(), course.stop_reason)
        seconds = self._clock.now() - self._began
        dead = all_deaths(told, self._company.dead, seconds, self._company.lost)
        run = replace(run, train_loss=loss, dead_ranks=dead)
        self._archive.keep(run, ranks)
        self._display.table("result", result_rows(run, ranks, str(self._place)))

    def _hurry(self) -> None:
        """A signal has come: what is known must survive a launcher that kills."""
        if self._kept is not None and self._watch.preempted:
            self._kept.keeper.ask()
        if self._metrics is not None:
            self._metrics.flush()
        self._keep_what_is_known("interrupted")

    def _keep_what_is_known(self, reason: Any) -> None:
        if self._archive is not None and self._leads():
            self._archive.keep_partial(reason)

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()

    def _close(self) -> None:
        """Leave nothing open; an error that is under way is the one to tell."""
        self._display.close()
        with suppress(AcidError):
            self._close_metrics()


def common_options(config: TrainConfig) -> dict[str, str]:
    """What all ranks must have been started with alike, by name."""
    options = {
        field.name: str(getattr(config, field.name))
        for field in fields(config)
        if field.name not in OWN_OPTIONS
    }
    return {"version of acidmpi": version_of("acidmpi"), **options}
