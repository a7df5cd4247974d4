"""How exact a search shall be, the caller's choice per query, and what an answer can vouch for; clients import it."""

import math
from dataclasses import dataclass
from typing import Final

from indexer.errors import QueryError

MAX_BUDGET_MS: Final = 60_000.0


@dataclass(frozen=True)
class Exact:
    """The true ranking, whatever it takes."""


@dataclass(frozen=True)
class Approximate:
    """Most of the true ranking, in a fraction of the time.

    Args:
        recall: share of the true hits that queries shall find on average, above 0 and at most 1; 1 is exact.

    Raises:
        QueryError: the recall is out of range.
    """

    recall: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise QueryError(f"recall must be above 0 and at most 1, got {self.recall:g}", field="approximate.recall")


@dataclass(frozen=True)
class Budget:
    """What can be found in a given time; exact if that is enough.

    Args:
        ms: milliseconds for the search, above 0 and at most 60,000. It is overrun by the time of one step.

    Raises:
        QueryError: the budget is out of range.
    """

    ms: float

    def __post_init__(self) -> None:
        if not 0 < self.ms <= MAX_BUDGET_MS:
            raise QueryError(
                f"budget_ms must be above 0 and at most {MAX_BUDGET_MS:.0f}, got {self.ms:g}", field="budget_ms"
            )


Mode = Exact | Approximate | Budget
EXACT: Final = Exact()


@dataclass(frozen=True)
class Certificate:
    """What is known about the photos that were not looked at.

    Args:
        unseen_from: each of them is at least this far, in the scale of the ranking's distances; infinite when every
            photo that takes part was looked at.
        exact: whether hits and order are those of an exhaustive comparison.
    """

    unseen_from: float = math.inf
    exact: bool = True

    @classmethod
    def of(cls, unseen_from: float, farthest_hit: float) -> "Certificate":
        """Exact when nothing unseen can be as near as the last hit: a photo as near might come first by its row."""
        return cls(unseen_from, farthest_hit < unseen_from)
