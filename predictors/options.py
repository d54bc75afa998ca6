"""How predictors are trained."""

from __future__ import annotations

from dataclasses import dataclass

from twin import UserError

FAMILIES = ("forest", "boosting", "knn", "svm")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    The defaults were set by hand; the cards of the shipped models have the errors that they lead to (docs/predictors.md).

    Attributes
    ----------
    families : tuple of str
        scikit-learn families to choose from by cross-validation.
    trees : int
        Trees of a random forest.
    forest_leaves : int
        Most leaves of each of its trees.
    boosting_rounds, boosting_leaves : int
        Trees of gradient boosting and the most leaves of each.
    boosting_inputs : float
        Share of the inputs that each split is chosen among. A constrained forest cannot take back what it once gave to
        one of several inputs that tell much the same; with fewer to choose from it spreads what it learns.
    learning_rate : float
    neighbours : int
        Of the nearest-neighbour family.
    svm_rows : int
        Contents that a support vector machine learns from.
    comparison_rows : int
        Contents that the families are compared on; the winner learns from all.
    distilled_leaves : int
        Most leaves of a distilled tree.
    distillation_points : int
        Unlabelled contents that a distilled tree is fitted to, beside the labelled ones.
    distillation_attempts : int
        Trees that the distilled tree of starvation is chosen among.
    folds : int
        Of the cross-validation.
    test_share : float
        Share of the data that is left out for the figures of the card.
    risk : float
        Share of the starved contents of the designed sample that the threshold may miss.
    seed : int
    """

    families: tuple[str, ...] = FAMILIES
    trees: int = 60
    forest_leaves: int = 600
    boosting_rounds: int = 500
    boosting_leaves: int = 31
    boosting_inputs: float = 0.3
    learning_rate: float = 0.08
    neighbours: int = 12
    svm_rows: int = 4_000
    comparison_rows: int = 12_000
    distilled_leaves: int = 256
    distillation_points: int = 20_000
    distillation_attempts: int = 24
    folds: int = 4
    test_share: float = 0.2
    risk: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown or not self.families:
            raise UserError(f"families={list(self.families)}: choose among {list(FAMILIES)}")
        for key in ("risk", "test_share", "learning_rate"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(f"{key}={getattr(self, key)} must be between 0 and 1")
        if not 0 < self.boosting_inputs <= 1:
            raise UserError(f"boosting_inputs={self.boosting_inputs} must be above 0 and at most 1")
        fewest = {
            "trees": 1, "forest_leaves": 2, "boosting_rounds": 1, "boosting_leaves": 2, "neighbours": 1, "svm_rows": 20,
            "comparison_rows": 40, "distilled_leaves": 2, "distillation_attempts": 1, "folds": 2,
        }  # fmt: skip
        for key, least in fewest.items():
            if getattr(self, key) < least:
                raise UserError(f"{key}={getattr(self, key)} is too small, {least} is the least")
