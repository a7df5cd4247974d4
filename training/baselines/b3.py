"""B3: on-the-fly retrieval by reinforcement learning (Bhunia et al., Sketch Less for More, 2020) on a frozen B1.

The policy is one linear layer on B1's pooled sketch features, started as B1's own. Its action is an embedding, drawn
from a normal distribution around its mean; the reward is 1 / rank of the target among the training photos, less a
small penalty when the ranking turns over more than it did at the stage before. An action does not change what is
drawn next, so every stage is an episode of its own, and the advantage is the reward less the batch's mean at that
stage.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.baselines.b1 import fit_b1
from training.loop import Recipe, TrainingSet
from training.networks import FrozenNetwork, Maps, WholeNetwork, for_every_region

CLIP = 0.2
TURNOVER_WEIGHT = 1e-4
EPISODES = 16
PASSES = 4
"""Steps of PPO on the same actions."""
_WATCHED = 64
"""Photos whose mutual order is watched for the turnover of a ranking."""


class PolicyNetwork(FrozenNetwork):
    """Photos as B1 embeds them, sketches by the policy's mean.

    Args:
        base: trained B1; it is not trained further.
    """

    reads = ("whole",)

    def __init__(self, base: WholeNetwork) -> None:
        super().__init__()
        self.dim = base.dim
        self.base = base.requires_grad_(False)
        self.policy = copy.deepcopy(base.head.project).requires_grad_(True)
        self.log_std = nn.Parameter(torch.zeros(base.dim))

    def photos(self, maps: Maps) -> Tensor:
        """(n, 14, dim)."""
        return self.base.photos(maps)

    def sketches(self, maps: Maps) -> Tensor:
        """(n, 14, dim): the mean action."""
        return for_every_region(F.normalize(self.policy(self.base.head.attention(maps["whole"]))))


def fit_b3(drawn: TrainingSet, seed: int, dim: int = 16, recipe: Recipe | None = None) -> PolicyNetwork:
    """Train B1, freeze it, and improve its linear layer by proximal policy optimisation."""
    network = PolicyNetwork(fit_b1(drawn, seed, dim, recipe)).to(drawn.device)
    drawn.freeze()
    network.eval()
    recipe = recipe or Recipe()
    generator = torch.Generator().manual_seed(seed)
    everyone = torch.arange(drawn.people)
    with torch.no_grad():
        gallery = torch.cat([network.photos(drawn.photos(part))[:, 0] for part in everyone.split(256)])
        # The state is frozen: (people, stages, 2048), computed once.
        states = torch.cat([network.base.head.attention(drawn.drawings(p)["whole"]) for p in everyone.split(32)])
        states = states.view(drawn.people, drawn.stages, -1)
    optimiser = torch.optim.Adam([*network.policy.parameters(), network.log_std], 1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [recipe.epochs // 2], 0.1)
    for _ in range(recipe.epochs):
        for people in torch.randperm(drawn.people, generator=generator).split(EPISODES):
            _improve(network, states[people], people, gallery, optimiser, generator)
        schedule.step()
    return network.requires_grad_(False)


def _improve(
    network: PolicyNetwork,
    states: Tensor,
    people: Tensor,
    gallery: Tensor,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Act once, then take a few clipped steps on what came of it."""
    with torch.no_grad():
        mean, std = network.policy(states), network.log_std.exp()
        actions = mean + std * torch.randn(mean.shape, generator=generator).to(mean)
        before = torch.distributions.Normal(mean, std).log_prob(actions).sum(-1)
        gained = rewards(F.normalize(actions, dim=-1), people, gallery)
        advantage = (gained - gained.mean(dim=0)) / (gained.std() + 1e-6)
    for _ in range(PASSES):
        normal = torch.distributions.Normal(network.policy(states), network.log_std.exp())
        ratio = (normal.log_prob(actions).sum(-1) - before).exp()
        loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def rewards(actions: Tensor, people: Tensor, gallery: Tensor) -> Tensor:
    """(b, stages, dim) unit actions -> (b, stages): 1 / rank, less the growth of the turnover.

    Args:
        actions: embeddings acted.
        people: (b,) rows of the gallery that are the targets.
        gallery: (photos, dim) unit rows.

    Source: Bhunia et al., 2020, local and global reward: -max(0, tau(t, t + 1) - tau(t - 1, t)) with Kendall's tau as a
    distance, here between the orders of at most 64 photos.
    """
    distances = torch.cdist(actions, gallery[None].expand(len(actions), -1, -1))
    targets = people.to(distances.device)[:, None, None]
    own = distances.gather(2, targets.expand(-1, distances.shape[1], 1))
    gained = 1 / (distances <= own).sum(dim=2).float()
    watched = distances[:, :, :_WATCHED]
    order = torch.sign(watched[..., :, None] - watched[..., None, :])
    pairs = max(1, watched.shape[2] * (watched.shape[2] - 1))
    # Kendall's tau of successive rankings, as a distance: the share of pairs of photos that changed their order.
    tau = (1 - (order[:, 1:] * order[:, :-1]).sum(dim=(2, 3)) / pairs) / 2  # (b, stages - 1)
    growth = F.pad((tau[:, 1:] - tau[:, :-1]).clamp_min(0), (2, 0))  # nothing to compare in the first two stages
    return gained - TURNOVER_WEIGHT * growth[:, : gained.shape[1]]
