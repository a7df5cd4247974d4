"""How fast what is trained: one cycle of AdamW, the stem in the last epochs only."""

import torch
from torch import nn

from training.encoder.single_pass import SinglePassEncoder
from training.encoder.trunk import STEM_LAYERS
from training.settings import FitConfig


def one_cycle(
    config: FitConfig, model: SinglePassEncoder, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW on trunk and heads, and its rates over so many steps in all."""
    groups = [
        {"params": list(model.trunk.parameters()), "lr": config.trunk_rate},
        {"params": list(model.heads.parameters()), "lr": config.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [config.trunk_rate, config.head_rate], total_steps=steps, pct_start=0.15
    )
    return optimiser, schedule


def trains_stem(config: FitConfig, epoch: int) -> bool:
    """Whether the epoch, counted from 0, is one of the last, in which the stem is trained, too."""
    return epoch >= config.epochs - config.stem_epochs


def set_stem(trunk: nn.Module, train: bool) -> None:
    """Train the stem, or leave it as it is."""
    for name in STEM_LAYERS:
        trunk.get_submodule(name).requires_grad_(train)
