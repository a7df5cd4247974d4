"""Moves a drawing back to where the photos have the face, before the trunk sees it.

Regions are compared place by place, so a drawing that is a few percent off meets the wrong places. A small network
looks at the canvas and says how far it is off; the trunk then sees the canvas moved back. What it cannot know (a photo
need not lie as the average photo does) it leaves: trained on squared error, it answers with the mean of what may be.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.variants import MOVED_SCALE, MOVED_SHIFT, MOVED_TURN_DEGREES

LOOK_PX: Final = 64
"""The side at which the aligner looks."""

REACH: Final = (MOVED_SHIFT, MOVED_SHIFT, math.radians(MOVED_TURN_DEGREES), MOVED_SCALE)
"""What the four outputs are in units of: a move as far as the probe set `moved` goes."""


class Aligner(nn.Module):
    """From a canvas to the move that took it away from the photos' framing.

    Args:
        width: channels of the first layer.
    """

    reach: Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("reach", torch.tensor(REACH), persistent=False)
        self.layers = nn.Sequential(
            _halve(1, width),  # (n, width, 32, 32)
            _halve(width, 2 * width),
            _halve(2 * width, 4 * width),
            _halve(4 * width, 4 * width),  # (n, 4 * width, 4, 4)
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64 * width, 64),
            nn.ReLU(),
            nn.Linear(64, 4),
        )
        # Untrained it leaves every canvas where it is.
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, looks: Tensor) -> Tensor:
        """(n, 64, 64) ink from 0 to 1 -> (n, 4): x and y in canvas units, turn in radians, log of the scale."""
        moves: Tensor = self.layers(looks[:, None]) * self.reach
        return moves

    def align(self, canvases: Tensor) -> Tensor:
        """(n, size, size) uint8 canvases, ink bright on 0 -> (n, size, size) float32 from 0 to 1, moved back."""
        ink = canvases.float() / 255
        return undo_move(ink, self(look(ink)))


def look(ink: Tensor) -> Tensor:
    """(n, size, size) from 0 to 1 -> (n, 64, 64): what the aligner looks at; plain averages where 64 divides size."""
    side = int(ink.shape[-1])
    if side % LOOK_PX == 0:
        return F.avg_pool2d(ink[:, None], side // LOOK_PX)[:, 0]
    return F.interpolate(ink[:, None], (LOOK_PX, LOOK_PX), mode="bilinear", align_corners=False)[:, 0]


def undo_move(ink: Tensor, moves: Tensor) -> Tensor:
    """(n, size, size) and (n, 4) moves as `training.variants.move` makes them -> (n, size, size), moved back."""
    side = int(ink.shape[-1])
    # The inverse of a move, seen from the output: pixel p shows what lies at the moved p.
    x, y, turn, scale = moves[:, 0], moves[:, 1], moves[:, 2], moves[:, 3].exp()
    cos, sin = scale * torch.cos(turn), scale * torch.sin(turn)
    # grid_sample's units run from -1 to 1 over the canvas, twice as many as ours.
    matrix = torch.stack([cos, -sin, 2 * x, sin, cos, 2 * y], dim=1).view(-1, 2, 3)
    at = (2 * torch.arange(side, device=ink.device) + 1) / side - 1
    points = torch.stack([at.repeat(side), at.repeat_interleave(side), torch.ones_like(at).repeat(side)], dim=1)
    grid = (points @ matrix.transpose(1, 2)).view(-1, side, side, 2)
    return F.grid_sample(ink[:, None], grid, align_corners=False)[:, 0]


def _halve(channels: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
