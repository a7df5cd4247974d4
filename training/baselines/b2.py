"""B2: B1's network, trained on random stages of the drawings."""

from training.baselines.b1 import fit_whole
from training.loop import Recipe, TrainingSet
from training.networks import WholeNetwork


def fit_b2(drawn: TrainingSet, seed: int, dim: int = 16, recipe: Recipe | None = None) -> WholeNetwork:
    """Train on every stage."""
    return fit_whole(drawn, seed, dim, recipe or Recipe(), complete_only=False)
