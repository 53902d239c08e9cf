"""Studies: runs that belong together because they answer one question."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from multimix._declared import Checked, Count
from multimix.lab.train import TrainConfig
from multimix.protocols import Method

TRIAL_SEED = 1000
"""First seed of the trials that choose between candidates: none that a run of the study itself has."""


@dataclass(frozen=True, kw_only=True)
class Study(Checked):
    """What to train to answer a question, and what to compare with what.

    Raises:
        ValueError: If there are no arms, ``against`` is none of them, or they do not have equally many candidates.
    """

    name: str
    """What the command line calls it."""
    question: str
    """What it is to answer, in a sentence."""
    arms: Mapping[str, tuple[TrainConfig, ...]]
    """By label what is compared: one configuration, or several candidates among which validation chooses."""
    against: str = "erm"
    """The arm that the paired tables compare all others with."""
    seeds: Count = 3
    """Runs of each arm, with seeds 0, 1, ..."""
    needs: tuple[str, ...] = ()
    """Fields that the arms leave open, which whoever runs the study has to set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.arms:
            raise ValueError(f"arms of study {self.name} must hold at least one arm, got none")
        if self.against not in self.arms:
            raise ValueError(f"against must be one of {', '.join(self.arms)}, got {self.against!r}")
        counts = {label: len(candidates) for label, candidates in self.arms.items()}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(f"arms must have equally many candidates, at least 1, got {counts}")

    def changed(self, change: Callable[[TrainConfig], TrainConfig]) -> "Study":
        """Return the study with a change to every configuration, as one that overrides fields."""
        return replace(self, arms={label: tuple(map(change, candidates)) for label, candidates in self.arms.items()})

    def chosen(self, choice: Mapping[str, int]) -> dict[str, TrainConfig]:
        """Return the configuration of each arm, given which candidate was chosen where there are several.

        Raises:
            ValueError: If a field that the study needs is not set; so :meth:`trials`.
        """
        self._check_needs()
        return {label: candidates[choice.get(label, 0)] for label, candidates in self.arms.items()}

    def trials(
        self, left: Mapping[str, Iterable[int]] | None = None, seed: int = TRIAL_SEED
    ) -> dict[tuple[str, int], TrainConfig]:
        """Return the runs that choose, by label and number of the candidate: they leave the test set alone.

        ``left`` are the candidates still in question, by label; by default those of all arms that have several.
        """
        self._check_needs()
        if left is None:
            left = {label: range(len(several)) for label, several in self.arms.items() if len(several) > 1}
        more = "" if seed == TRIAL_SEED else f"-{seed}"
        return {
            (label, number): replace(self.arms[label][number], label=f"{label}-{number}{more}", seed=seed, test=False)
            for label, numbers in left.items()
            for number in numbers
        }

    def _check_needs(self) -> None:
        for field in self.needs:
            if any(getattr(config, field) is None for candidates in self.arms.values() for config in candidates):
                raise ValueError(f"study {self.name} needs {field}: give --{field.replace('_', '-')}")


def arms(base: TrainConfig, methods: Mapping[str, Method | Iterable[Method]]) -> dict[str, tuple[TrainConfig, ...]]:
    """Return arms that differ in their method alone: one, or several candidates."""
    return {
        label: tuple(
            replace(base, label=label, method=one)  # type: ignore[arg-type]
            for one in ([given] if isinstance(given, Method) else given)
        )
        for label, given in methods.items()
    }
