"""Rounds of active learning, each in a folder of its own: what is the same for all coordinates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from deepcg.analysis.style import png
from deepcg.potentials.ensemble import member_folder
from deepcg.potentials.model_file import CVModel, Model, save_model
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.config import write_toml
from deepcg.runtime.files import make_folder, read_arrays, write_arrays, write_bytes, write_json
from deepcg.runtime.progress import Progress
from deepcg.runtime.provenance import versions
from deepcg.training.config import TrainingConfig
from deepcg.training.members import member_seed
from deepcg.workflow.fit.config import FitConfig, absolute
from deepcg.workflow.fit.vouched_files import hashes_of
from deepcg.workflow.learn.acquisition import Answer, Data, Exploration, Oracle
from deepcg.workflow.learn.config import LearnConfig
from deepcg.workflow.learn.figures import learning_figure

Member = TypeVar("Member", CVModel, Model)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did: all but its frames and weights.

    ``unknown`` is the part of where walkers went at which Sigma was above the lower trust level
    before the round; ``spread`` is the rms of Sigma there, of beads that of the worst one in each
    frame. ``frames`` counts labels that are mean forces, too.
    """

    number: int
    unknown: float
    spread: float
    asked: int
    answered: int
    frames: int


@dataclass(frozen=True, slots=True, eq=False)
class State(Generic[Member, Data]):
    """The members, what the rounds did, and the answers that they had."""

    models: tuple[Member, ...]
    rounds: tuple[Round, ...] = ()
    answers: tuple[Answer[Data], ...] = ()

    @property
    def silent(self) -> Tensor:
        """Places at which nobody could answer, (m, d)."""
        missed = [answer.queries[~torch.from_numpy(answer.answered)] for answer in self.answers]
        return torch.cat(missed) if missed else torch.zeros(0, 1)

    @property
    def data(self) -> list[Data]:
        """What answered, round by round."""
        return [answer.data for answer in self.answers if answer.data is not None]


@dataclass(frozen=True, slots=True, eq=False)
class Learned(Generic[Member, Data]):
    """What came of it: the members, what each round did and had, and what is not known in the end.

    ``unknown`` is the part of where walkers go.
    """

    models: tuple[Member, ...]
    rounds: tuple[Round, ...]
    unknown: float
    frames: tuple[Data, ...]


class Job(Protocol[Member, Data]):
    """What differs between collective variables and beads."""

    fitted: FitConfig
    models: tuple[Member, ...]

    @property
    def oracle(self) -> Oracle[Data]:
        """Who answers."""
        ...

    @property
    def n_own(self) -> int:
        """Number of frames that the run was fitted to."""
        ...

    def survey(self, state: State[Member, Data], number: int, progress: Progress) -> Exploration:
        """Let walkers look for what is not known, before a round."""
        ...

    def ask(
        self,
        state: State[Member, Data],
        found: Exploration,
        number: int,
        folder: Path,
        progress: Progress,
    ) -> Answer[Data]:
        """Return the answer of the oracle at some of the places that are not known."""
        ...

    def train(
        self,
        models: Sequence[Member],
        data: Sequence[Data],
        training: TrainingConfig,
        seeds: Sequence[int],
        progress: Progress,
    ) -> tuple[Member, ...]:
        """Return the members, trained on from their weights, with all answers so far."""
        ...

    def load(self, folder: Path) -> tuple[Member, ...]:
        """Return the members of a run folder."""
        ...

    def write_more(self, folder: Path, state: State[Member, Data]) -> None:
        """Write what a run folder has beside members and settings."""
        ...

    def shown(self, answer: Answer[Data]) -> Doubles:
        """Return what a figure shows of the places of a round, (n, 1 or more)."""
        ...

    @property
    def axes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names and units of what it shows."""
        ...


def take_rounds(
    job: Job[Member, Data], config: LearnConfig, progress: Progress, tell: Callable[[str], None]
) -> Learned[Member, Data]:
    """Explore, ask and train until little is unknown; write all rounds, and what came of them.

    Rounds that are on disk are taken from there.
    """
    state: State[Member, Data] = State(job.models)
    for number in range(1, config.rounds + 1):
        folder = config.output / f"round-{number}"
        if (folder / "round.json").is_file():
            state = _recalled(job, state, folder)
        else:
            found = job.survey(state, number, progress)
            if found.fraction <= config.stop_fraction and not config.at_random:
                break
            state = _round(job, state, found, number, config, progress)
        tell(_in_words(state.rounds[-1]))
    last = job.survey(state, len(state.rounds) + 1, progress)
    tell(f"{100 * last.fraction:.1f} % of where walkers go is not known now")
    write_run(job, config.output, state)
    _write_results(job, config, state, last.fraction)
    tell(f"run in {config.output}")
    return Learned(state.models, state.rounds, last.fraction, tuple(state.data))


def write_run(job: Job[Member, Data], folder: Path, state: State[Member, Data]) -> None:
    """Write a run folder."""
    make_folder(folder)
    members = replace(job.fitted.members, ensemble=len(state.models))
    settings = absolute(replace(job.fitted, output=folder, members=members))
    write_toml(folder / "config.toml", settings)
    for k, model in enumerate(state.models):
        make_folder(member_folder(folder, k))
        save_model(member_folder(folder, k) / "model.pt", model)
    about = {"kind": "round of active learning", "hashes": hashes_of(job.fitted.output)}
    write_json(folder / "run.json", about)
    job.write_more(folder, state)


def _round(
    job: Job[Member, Data],
    state: State[Member, Data],
    found: Exploration,
    number: int,
    config: LearnConfig,
    progress: Progress,
) -> State[Member, Data]:
    """Return the state after asking and training, which is then on disk."""
    folder = config.output / f"round-{number}"
    told: Progress = lambda done, total, what: progress(done, total, f"round {number}, {what}")
    answer = job.ask(state, found, number, folder, told)
    done = Round(
        number,
        found.fraction,
        float(found.spread.square().mean().sqrt()),
        len(answer.queries),
        int(answer.answered.sum()),
        0 if answer.data is None else len(answer.data),
    )
    answers = (*state.answers, answer)
    data = State(state.models, (), answers).data
    training, seeds = _training(job.fitted, config, number, len(state.models))
    models = job.train(state.models, data, training, seeds, told)
    state = State(models, (*state.rounds, done), answers)
    write_run(job, folder, state)
    arrays = {"places": answer.queries.numpy(), "answered": answer.answered, **answer.saved}
    write_arrays(folder / "asked.npz", arrays)
    write_json(folder / "round.json", asdict(done))  # last: the round is whole now
    return state


def _recalled(
    job: Job[Member, Data], state: State[Member, Data], folder: Path
) -> State[Member, Data]:
    """Return the state after a round that is on disk."""
    saved = read_arrays(folder / "asked.npz")
    queries, answered = torch.from_numpy(saved.pop("places")), saved.pop("answered")
    answer: Answer[Data] = Answer(queries, answered, None, saved)
    answer = replace(answer, data=job.oracle.recall(saved, folder))
    done = Round(**json.loads((folder / "round.json").read_text()))
    return State(job.load(folder), (*state.rounds, done), (*state.answers, answer))


def _training(
    fitted: FitConfig, config: LearnConfig, number: int, n_members: int
) -> tuple[TrainingConfig, list[int]]:
    """Return how to train in a round, and the seed of each member's order of frames."""
    plain = fitted.training
    assert plain.learning_rate is not None  # fits of collective variables write their own
    training = replace(
        plain,
        steps=config.refit_steps,
        learning_rate=plain.learning_rate / 2,
        validations=1,
        patience=0,
    )
    # other orders of frames than in the rounds before
    return training, [member_seed(plain.seed + 7919 * number, k) for k in range(n_members)]


def _in_words(done: Round) -> str:
    return (
        f"round {done.number}: {100 * done.unknown:.1f} % of where walkers go was not known; "
        f"{done.asked} places asked for, {done.answered} answered; {done.frames} frames added"
    )


def _write_results(
    job: Job[Member, Data], config: LearnConfig, state: State[Member, Data], unknown: float
) -> None:
    content = {
        "kind": "active learning",
        "run": str(config.run.resolve()),
        "pool": [str(path.resolve()) for path in config.pool],
        "oracle": config.oracle,
        "members": len(state.models),
        "rounds": [asdict(done) for done in state.rounds],
        "unknown_at_the_end": unknown,
        "frames_at_first": job.n_own,
        "frames_added": sum(len(data) for data in state.data),
        "versions": versions(),
        "hashes": hashes_of(config.run),
    }
    write_json(config.output / "run.json", content)
    queries = [job.shown(answer) for answer in state.answers]
    parts = [done.unknown for done in state.rounds] + [unknown]
    figure = learning_figure(queries, parts, *job.axes)
    write_bytes(config.output / "learning.png", png(figure))
