"""Whether a drawing's ranking has settled, or it is too early to tell.

Calibrated on drawings of 70 stages made from FS2K's finished sketches of people that the default model was not trained
on (60 of Dataset 1's val split, 33 of Dataset 2's; as drawn, and up to 6 % beside the photo), each ranked among 600
photos after every stage. Of the answers that were not too early (87 %) 97.7 % had the person among the first ten and
88.9 % first; of the others 73.9 % and 31.9 %. A drawing from memory does worse.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from service.answers import Stability

SETTLED_REGIONS: Final = 8
"""Of the 14, inked: more than half of the face."""

SETTLED_STROKES: Final = 5
"""Drawn without another photo taking the lead."""


class Settling:
    """Follows who leads the rankings of one drawing, and since when."""

    def __init__(self) -> None:
        self._leader: str | None = None
        self._since = 0

    def judge(
        self,
        photo_ids: Sequence[str],
        before: Mapping[str, int] | None,
        ink: npt.NDArray[np.bool_],
        drawn: int,
        has_picture: bool,
    ) -> Stability:
        """What a ranking says about how settled it is; of every ranking once, in order.

        Args:
            photo_ids: its hits, closest first.
            before: the previous ranking's, None if there was none.
            ink: (14,) bool, the inked regions.
            drawn: strokes drawn so far.
            has_picture: whether a picture lies under them; it counts as drawn, and its ink alone decides.
        """
        leader = photo_ids[0] if photo_ids else None
        if leader != self._leader or drawn < self._since:
            self._leader, self._since = leader, drawn
        settled = drawn - self._since
        shared = None if before is None or not photo_ids else sum(photo_id in before for photo_id in photo_ids)
        return Stability(
            overlap=None if shared is None else shared / len(photo_ids),
            settled_strokes=settled,
            too_early=leader is None
            or int(ink.sum()) < SETTLED_REGIONS
            or (settled < SETTLED_STROKES and not has_picture),
        )
