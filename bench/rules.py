"""`python -m bench.rules`: the distilled trees as rules to read, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.shared.command import command
from bench.shared.files import check_file
from bench.shared.terminal import console
from bench.training.tree_picture import LEAVES, draw
from predictors import load_predictor
from predictors.meanfield import INPUT_NAMES
from predictors.model import TARGETS
from predictors.trees import Forest
from twin import UserError


@dataclass
class RulesConfig:
    """Options of `python -m bench.rules`; `conf/rules.yaml` says what each is for."""

    predictor: str = "llama-3.1-8b"
    target: str = "starvation"
    depth: int = 5
    picture: str | None = None


@command("rules", RulesConfig)
def main(config: RulesConfig) -> None:
    """Print the rules of one tree and draw its first levels."""
    if config.target not in TARGETS:
        raise UserError(f"target={config.target}: must be one of {list(TARGETS)}")
    if config.depth < 1:
        raise UserError(f"depth={config.depth} must be 1 or more")
    if config.picture:
        check_file("picture", config.picture, ".png")
    predictor = load_predictor(config.predictor)
    tree: Forest = getattr(predictor, f"{config.target}_tree")
    title = f"{predictor.profile_name}, {config.target}: {LEAVES[config.target]}, {tree.n_leaves} leaves"
    screen = console()
    screen.print(title, soft_wrap=True)
    screen.print(tree.rules(INPUT_NAMES), soft_wrap=True)
    if config.picture:
        path = Path(config.picture)
        draw(tree, title, path, config.depth)
        screen.print(f"drawn: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
