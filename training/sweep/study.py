"""The trials of a sweep in its folder: optuna chooses their settings and keeps what came of them in ``sweep.db``."""

from __future__ import annotations

import io
import sqlite3
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from training.files import FileError
from training.files.durable import write_atomically
from training.files.errors import shortened
from training.loop.figures import DOTS_PER_INCH
from training.sweep.plan import Plan

if TYPE_CHECKING:
    import optuna

DATABASE = "sweep.db"
_ERROR = "error"


def require_optuna() -> None:
    """Import optuna.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ValueError("a sweep needs optuna: pip install 'xpnet[sweep]', or pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The trials of a sweep.

    The choice of a trial's settings depends on the seed and on the trials that have ended alone: a sweep that was
    interrupted goes on as if nothing had happened.

    Raises:
        FileError: the folder's database is damaged.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        self._plan = plan
        file = folder.resolve() / DATABASE
        try:
            # Opened by its path: in an address, ? and % of a folder's name would mean something else.
            own = {"creator": lambda: sqlite3.connect(file, timeout=60, check_same_thread=False)}
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs=own)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name="sweep",
                direction="minimize" if plan.falls else "maximize",
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=2) if plan.prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            running = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise FileError(f"{folder / DATABASE}: not the database of a sweep: {shortened(error)}") from error
        for trial in running:
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # its process was killed

    def close(self) -> None:
        """Close the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def ended(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that have ended, not those that were interrupted."""
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        return [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED) or _ERROR in t.user_attrs]

    @property
    def best(self) -> optuna.trial.FrozenTrial | None:
        """The best complete trial, the first of equal ones; None before there is one."""
        from optuna.trial import TrialState

        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not complete:
            return None
        sign = 1 if self._plan.falls else -1
        return min(complete, key=lambda trial: (sign * (trial.value or 0), trial.number))

    def ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        """Begin a trial. Return it with the settings that it is to have."""
        import optuna

        seed = numpy.random.SeedSequence((self._plan.seed, len(self.ended))).generate_state(1)[0]
        self._study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        trial = self._study.ask()
        return trial, {name: choice.suggest(trial, name) for name, choice in self._plan.search.items()}

    def complete(self, trial: optuna.Trial, value: float) -> None:
        """Keep the value of a trial."""
        self._study.tell(trial, value)

    def prune(self, trial: optuna.Trial) -> None:
        """Keep that a trial was ended early."""
        import optuna

        self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, error: str) -> None:
        """Keep that a trial failed, or with an empty text that it was interrupted, after which it is made again."""
        import optuna

        if error:
            trial.set_user_attr(_ERROR, error)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def draw(self, folder: Path) -> dict[str, str]:
        """Draw the trials, the values by setting, and which settings matter, as PNG files.

        Returns:
            What could not be drawn, with the reasons.

        Raises:
            OSError: a file cannot be written.
        """
        import matplotlib

        matplotlib.use("agg")
        import optuna.visualization.matplotlib as plots
        from matplotlib import pyplot
        from optuna.importance import PedAnovaImportanceEvaluator
        from optuna.trial import TrialState

        metric = self._plan.metric
        drawings = {
            "history": lambda: plots.plot_optimization_history(self._study, target_name=metric),
            "settings": lambda: plots.plot_slice(self._study, target_name=metric),
        }
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        undrawn = {}
        if len(self._plan.search) > 1:
            drawings["importances"] = lambda: plots.plot_param_importances(
                self._study, evaluator=PedAnovaImportanceEvaluator(), target_name=metric
            )
        for name, drawing in drawings.items():
            if len({trial.value for trial in complete}) < (2 if name == "importances" else 1):
                undrawn[name] = "too few different values"
                continue
            with warnings.catch_warnings(), matplotlib.rc_context():
                warnings.simplefilter("ignore")  # optuna calls its drawings experimental
                axes: Any = drawing()
                figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
                drawn = io.BytesIO()
                figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
                write_atomically(folder / f"{name}.png", drawn.getvalue())
                pyplot.close(figure)
        return undrawn
