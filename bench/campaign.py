"""`python -m bench.campaign`: drives real servers through load points, from which `bench.calibrate` makes a profile.

Every finished point is on disk at once, and a campaign that was interrupted goes on where it stood.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.terminal import console
from bench.vllm.load_points import CampaignOptions, about, check, measure, missing
from bench.vllm.measurement import write_json
from bench.vllm.stopping import run_until_stopped


@dataclass
class CampaignConfig(CampaignOptions):
    """Options of `python -m bench.campaign`; `conf/campaign.yaml` says what each is for."""

    out: str = "results/runs/campaign"


@command("campaign", CampaignConfig)
def main(config: CampaignConfig) -> None:
    """Measure what is missing."""
    terminal = console()
    check(config)
    out = check_folder("out", config.out)
    todo = missing(config, out)
    total = sum(len(server.points) for server in config.servers)
    terminal.print(
        f"campaign: {len(config.servers)} servers, {total} points of {config.model}, seed {config.seed}; "
        f"{sum(len(points) for _, points in todo)} points on {len(todo)} servers are missing in {out}"
    )
    if not todo:
        return
    write_json(about(config), out / "campaign.json")
    run_until_stopped(measure(config, todo, out, terminal))
    left = missing(config, out)
    if left:
        terminal.print(f"{len(left)} servers have points left; the same command goes on with them")


if __name__ == "__main__":
    main()
