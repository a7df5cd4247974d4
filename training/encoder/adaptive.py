"""The paper's adaptive module: a residual block that lifts a small crop's features to the whole image's width."""

import torch.nn.functional as F
from torch import Tensor, nn


class AdaptiveBlock(nn.Module):
    """768 channels of Mixed_6e to 2048, as Mixed_7c has them.

    Source: MGRL, section 2.3; layer sizes from the released code.
    """

    def __init__(self, channels: int = 768, hidden: int = 512, out: int = 2048) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 768, h, w) -> (n, 2048, h, w)."""
        return F.relu(self.branch(x) + self.shortcut(x))
