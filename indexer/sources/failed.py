"""What became of a job's photos, as JSON lines; those that failed can be the manifest of the next job."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from indexer.errors import DataError
from indexer.metadata import ID_COLUMN, to_json
from indexer.placing import Fate, Outcome
from indexer.sources.manifest import NOTED_ID, NOTED_NAME, REASON


class OutcomeFile:
    """A list of a job's photos; use it as a context manager. It takes its name when the job has ended, however.

    Until then it is `NAME.part`, so that a list that is there can be read by the job that replaces it.
    """

    def __init__(self, path: Path, row: Callable[[Outcome], dict[str, Any] | None]) -> None:
        """Begin a list.

        Args:
            path: the file.
            row: a photo's line, None for one that is not listed.

        Raises:
            DataError: the file cannot be written.
        """
        self._path, self._row = path, row
        self._part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write {path.name}: {error.strerror}") from error

    def note(self, outcome: Outcome) -> None:
        """List a photo."""
        if row := self._row(outcome):
            self._file.write(json.dumps(row) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        os.replace(self._part, self._path)


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """What became of a photo, whatever it is."""
    told = {"photo_id": outcome.photo_id, "of": outcome.of, "reason": outcome.reason}
    return {"name": outcome.item.name, "fate": outcome.fate.value, **{key: text for key, text in told.items() if text}}


def failed_row(outcome: Outcome) -> dict[str, Any] | None:
    """A failed photo as a row of a manifest; None of any other.

    An id that was made from the place is only noted: given as the photo's own it would replace whoever has it. Fields
    say their kinds: no other photo may have been stored that told the gallery, and a field may be called as what says
    where a photo is, as in many archives from the web.
    """
    if outcome.fate is not Fate.SKIPPED:
        return None
    item = outcome.item
    values = to_json({field: value for field, value in item.metadata.items() if value is not None})
    fields = {f"{field}:{item.kinds[field]}": values.get(field) for field in item.metadata}
    own = {ID_COLUMN if item.has_own_id else NOTED_ID: item.photo_id}
    return {**item.locator, **own, NOTED_NAME: item.name, REASON: outcome.reason, **fields}
