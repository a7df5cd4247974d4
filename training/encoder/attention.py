"""The paper's spatial attention, Eq. (1)."""

import torch.nn.functional as F
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """A soft mask over the map, added to the features, then global maximum pooling.

    Source: MGRL, Eq. (1), V_H = Gp(Z + Z * f_att(Z)); layer sizes from the released code.
    """

    def __init__(self, channels: int = 2048, hidden: int = 512) -> None:
        super().__init__()
        self.mask = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, channels), unit rows."""
        mask = F.softmax(self.mask(x).flatten(2), dim=-1).view(-1, 1, *x.shape[2:])
        return F.normalize((x + x * mask).amax(dim=(2, 3)))
