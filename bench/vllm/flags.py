"""vLLM's command-line flags of a planned GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.vllm.failures import Kind, ServerError
from twin import ServingProfile, UserError

#: `--max-lora-rank` takes these values only (vLLM 0.32, `MaxLoRARanks` in `vllm/config/lora.py`).
VLLM_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def vllm_lora_rank(rank: int) -> int:
    """The smallest `--max-lora-rank` of vLLM that takes adapters of `rank`.

    Raises
    ------
    UserError
        If there is none.
    """
    for allowed in VLLM_LORA_RANKS:
        if allowed >= rank:
            return allowed
    raise UserError(f"rank={rank}: vLLM takes LoRA ranks up to {VLLM_LORA_RANKS[-1]}")


@dataclass(frozen=True)
class ServerFlags:
    """What a server is started with, apart from the back end's own options.

    `bench.plan` prints commands of these, `bench.validate` and `bench.campaign` start servers with them, so that what was
    simulated, what is planned and what is measured are the same server.
    """

    max_loras: int
    max_lora_rank: int
    max_cpu_loras: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    block_size: int = 16
    tensor_parallel_size: int = 1
    prefix_caching: bool = False

    @classmethod
    def of(
        cls, profile: ServingProfile, ranks: Sequence[int], max_loras: int, max_cpu_loras: int | None = None
    ) -> ServerFlags:
        """The flags of a planned GPU.

        Parameters
        ----------
        profile : ServingProfile
            Its limits are the server's, as the figures hold for them only.
        ranks : sequence of int
            Of the adapters on the GPU.
        max_loras : int
        max_cpu_loras : int, optional
            By default as many as there are adapters.

        Raises
        ------
        UserError
            For a rank above all that vLLM takes.
        """
        return cls(
            max_loras=max_loras,
            # The rank that the profile was measured at, where that is above the adapters' own.
            max_lora_rank=vllm_lora_rank(profile.server_rank(max(ranks))),
            # vLLM refuses less host slots than GPU slots.
            max_cpu_loras=max(max_cpu_loras or len(ranks), max_loras),
            max_num_seqs=profile.max_num_seqs,
            max_num_batched_tokens=profile.max_num_batched_tokens,
            max_model_len=profile.max_model_len,
            block_size=profile.block_size,
            tensor_parallel_size=profile.tensor_parallel_size,
            prefix_caching=profile.prefix_caching,
        )

    def limit_arguments(self) -> list[str]:
        """The limits of a request and of a batch; prefix caching as it was simulated."""
        parallel = ["--tensor-parallel-size", str(self.tensor_parallel_size)] if self.tensor_parallel_size > 1 else []
        return [
            "--max-model-len", str(self.max_model_len),
            "--max-num-seqs", str(self.max_num_seqs),
            "--max-num-batched-tokens", str(self.max_num_batched_tokens),
            "--block-size", str(self.block_size),
            "--enable-prefix-caching" if self.prefix_caching else "--no-enable-prefix-caching",
            *parallel,
        ]  # fmt: skip

    def lora_arguments(self) -> list[str]:
        """The flags that decide how many adapters a server holds and computes with."""
        return [
            "--enable-lora",
            "--max-loras", str(self.max_loras),
            "--max-lora-rank", str(self.max_lora_rank),
            "--max-cpu-loras", str(max(self.max_cpu_loras, self.max_loras)),
        ]  # fmt: skip

    def check(self, ranks: Sequence[int]) -> None:
        """Raise `ServerError` for an adapter whose rank is above the server's limit."""
        for number, rank in enumerate(ranks):
            if rank > self.max_lora_rank:
                raise ServerError(
                    Kind.RANK_ABOVE_LIMIT,
                    f"adapter {number}: its rank {rank} is above the server's max_lora_rank={self.max_lora_rank}",
                )
