"""GPUs that profiles are estimated for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from twin import UserError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes
    ----------
    name : str
        As profiles name it: chip and memory.
    tables : str
        The system of the kernel tables.
    memory_gib : float
        What CUDA reports as its total.
    bandwidth : float
        Of its memory, TB/s.
    wide_steps : bool
        vLLM's larger defaults of `max_num_batched_tokens` and `max_num_seqs` are for it: 70 GiB or more, and no A100.
    """

    name: str
    tables: str
    memory_gib: float
    bandwidth: float
    wide_steps: bool


#: Makers' data sheets; memory as CUDA reports it, which is a little less than the sheet says.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-80gb", "a100_sxm", 79.25, 2.04, wide_steps=False),
        Gpu("h100-80gb", "h100_sxm", 79.19, 3.35, wide_steps=True),
        Gpu("h200-141gb", "h200_sxm", 139.8, 4.8, wide_steps=True),
        Gpu("b200-180gb", "b200_sxm", 178.4, 7.7, wide_steps=True),
        Gpu("l40s-48gb", "l40s", 44.4, 0.864, wide_steps=False),
    )
}
#: The card of the published runs: an H100 with HBM2e. No kernel table is of it; those of the H100 with 3.35 TB/s are slowed down by the
#: ratio of the bandwidths. Its memory is what the published logs say.
MEASURED_CARD = Gpu("h100-64gb", "h100_sxm", 63.4, 2.02, wide_steps=False)


def gpu_named(name: str) -> Gpu:
    """A GPU by name, or by the beginning of it where only one begins so.

    Raises
    ------
    UserError
        For an unknown one.
    """
    known = [*GPUS, MEASURED_CARD.name]
    meant = [full for full in GPUS if full == name.lower() or full.startswith(f"{name.lower()}-")]
    if name.lower() == MEASURED_CARD.name:
        return MEASURED_CARD
    if len(meant) == 1:
        return GPUS[meant[0]]
    near = difflib.get_close_matches(name.lower(), known, 1)
    raise UserError(
        f"gpu={name}: not known{f' (is {near[0]} meant?)' if near else ''}; there are {', '.join(sorted(known))}"
    )
