"""The placement as Helm values of the vLLM production-stack.

Read off the chart `vllm-stack` 0.1.16 of github.com/vllm-project/production-stack: `helm/values.schema.json` (commit
01eaf92) for the keys of `servingEngineSpec.modelSpec` and `loraAdapters`; `helm/templates/deployment-vllm-multi.yaml`
(commit 010004e) for the arguments that become of them; `helm/crds/crd-lora-adapter.yaml` (commit a7d2672) for the custom
resource; and `operator/internal/controller/loraadapter_controller.go` (commit 0c2b361), which loads an adapter into the pods
whose label `model`, the name of a `modelSpec`, is the resource's `baseModel`.

So each GPU is a `modelSpec` of its own with one replica, and an adapter is bound to it by that name. The stack's router sends
a request to a pod that lists the adapter among its models.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.planning.adapters import Adapter
from bench.planning.answer import GpuAnswer
from bench.planning.vllm_commands import Serving, lora_modules
from twin import UserError
from twin.numbers import whole

#: How the adapters get into a server: named on its command line, or loaded by the stack's controller.
ADAPTERS = ("modules", "resources")
#: Label of nodes that says of which type of a mixed fleet their GPUs are.
TYPE_LABEL = "lora-placement-bench/gpu-type"
API_VERSION = "production-stack.vllm.ai/v1alpha1"
# A name of Kubernetes ends up in names of services with an affix; 63 characters is the limit of those.
_LONGEST_NAME = 40
_QUANTITY = re.compile(r"(?=.*[1-9])\d{1,15}(\.\d{1,9})?([kMGTPE]|[KMGTPE]i)?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_SECRET = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_EXAMPLES = {"repository": "vllm/vllm-openai", "tag": "v0.32.0"}


@dataclass(frozen=True)
class Cluster:
    """What the pods have in common.

    Attributes
    ----------
    name : str
        Names of the model specs are this and the GPU's number.
    repository, tag : str
        Image of vLLM.
    cpus, memory : int, str
        What a pod asks for beside its GPU.
    adapters : {"modules", "resources"}
    secret : str
        Name of the secret with a Hugging Face token under the key HF_TOKEN; empty for none.
    """

    name: str = "lora"
    repository: str = "vllm/vllm-openai"
    tag: str = "v0.32.0"
    cpus: int = 8
    memory: str = "32Gi"
    adapters: str = "modules"
    secret: str = ""

    def __post_init__(self) -> None:
        if self.adapters not in ADAPTERS:
            raise UserError(f"kubernetes.adapters={self.adapters}: must be one of {list(ADAPTERS)}")
        whole("kubernetes.cpus", self.cpus, at_least=1, at_most=4096, unit="CPUs")
        if not _QUANTITY.fullmatch(self.memory):
            raise UserError(
                f"kubernetes.memory={self.memory}: must be a number with a unit of Kubernetes, such as 32Gi"
            )
        for key in ("repository", "tag"):
            if not _IMAGE.fullmatch(getattr(self, key)):
                raise UserError(
                    f"kubernetes.{key}={getattr(self, key)}: must be a part of an image's name, such as {_EXAMPLES[key]}"
                )
        if self.secret and not _SECRET.fullmatch(self.secret):
            raise UserError(
                f"kubernetes.secret={self.secret}: must be the name of a secret: small letters, digits, hyphens and dots"
            )
        if not self.name or self.name != kubernetes_name(self.name) or len(self.name) > 30:
            raise UserError(
                f"kubernetes.name={self.name}: must be at most 30 small letters, digits and hyphens, a letter or digit at both ends"
            )


def helm_values(gpus: Sequence[GpuAnswer], serving: Serving, cluster: Cluster) -> dict[str, Any]:
    """Values for `helm install -f`, serialisable as YAML."""
    values: dict[str, Any] = {
        "servingEngineSpec": {"modelSpec": [_model_spec(gpu, serving, cluster) for gpu in gpus]},
    }
    if cluster.adapters == "resources":
        values["loraController"] = {"enableLoraController": True}
        values["loraAdapters"] = [
            {
                "name": name,
                "baseModel": _spec_name(gpu, cluster),
                "adapterSource": _source(adapter, serving, cluster, helm=True),
                "loraAdapterDeploymentConfig": {"algorithm": "default", "replicas": 1},
            }
            for gpu, adapter, name in _named(gpus)
        ]
    return values


def lora_adapters(gpus: Sequence[GpuAnswer], serving: Serving, cluster: Cluster) -> list[dict[str, Any]]:
    """The `LoraAdapter` custom resources, for a stack whose engines were installed otherwise.

    Each names as its `baseModel` the model spec, that is the GPU, that it goes to.
    """
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "LoraAdapter",
            "metadata": {"name": name},
            "spec": {
                "baseModel": _spec_name(gpu, cluster),
                "adapterSource": _source(adapter, serving, cluster, helm=False),
                "loraAdapterDeploymentConfig": {"algorithm": "default", "replicas": 1},
            },
        }
        for gpu, adapter, name in _named(gpus)
    ]


def kubernetes_name(name: str) -> str:
    """A name as Kubernetes wants it (RFC 1123), unchanged if it is one; otherwise a hash keeps different ones apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    if plain == name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else f"adapter-{digest}"


def _model_spec(gpu: GpuAnswer, serving: Serving, cluster: Cluster) -> dict[str, Any]:
    resources = cluster.adapters == "resources"
    profile = serving.profile_of(gpu.gpu)
    flags = gpu.flags(profile)
    # `enableLoRA` gives --enable-lora, `maxLoras`, `maxModelLen` and `maxNumSeqs` their flags; the chart has no keys for the others.
    extra = [*flags.lora_arguments()[3:], *flags.limit_arguments()[4:], *serving.extra]
    spec: dict[str, Any] = {
        "name": _spec_name(gpu, cluster),
        "repository": cluster.repository,
        "tag": cluster.tag,
        "modelURL": serving.model,
        "enableLoRA": True,
        "replicaCount": 1,
        "requestCPU": cluster.cpus,
        "requestMemory": cluster.memory,
        "requestGPU": profile.tensor_parallel_size,
        "vllmConfig": {
            "maxLoras": gpu.max_loras,
            "maxModelLen": profile.max_model_len,
            "maxNumSeqs": profile.max_num_seqs,
            "extraArgs": extra if resources else [*extra, *lora_modules(gpu.adapters, serving)],
        },
    }
    if serving.kinds and gpu.gpu_type is not None:
        # Nodes of a type must carry this label: how a cluster calls its GPUs, a plan cannot know.
        label = {"key": TYPE_LABEL, "operator": "In", "values": [kubernetes_name(gpu.gpu_type)]}
        spec["nodeSelectorTerms"] = [{"matchExpressions": [label]}]
    if resources:
        spec["env"] = [{"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"}]
    if cluster.secret:
        spec["hf_token"] = {"secretName": cluster.secret, "secretKey": "HF_TOKEN"}
    return spec


def _spec_name(gpu: GpuAnswer, cluster: Cluster) -> str:
    return f"{cluster.name}-gpu-{gpu.gpu}"


def _named(gpus: Sequence[GpuAnswer]) -> list[tuple[GpuAnswer, Adapter, str]]:
    """Each adapter on each GPU with the name of its resource; replicas of an adapter have the GPU in theirs."""
    copies: dict[str, int] = {}
    for gpu in gpus:
        for adapter in gpu.adapters:
            copies[adapter.name] = copies.get(adapter.name, 0) + 1
    return [
        (gpu, adapter, kubernetes_name(adapter.name) + (f"-gpu-{gpu.gpu}" if copies[adapter.name] > 1 else ""))
        for gpu in gpus
        for adapter in gpu.adapters
    ]


def _source(adapter: Adapter, serving: Serving, cluster: Cluster, *, helm: bool) -> dict[str, Any]:
    path = serving.path_of(adapter)
    # Whatever is no folder is a repository: vLLM reads `--lora-modules` in the same way.
    if path.startswith(("/", ".", "~")):
        return {"type": "local", "adapterName": adapter.name, "adapterPath": path}
    source: dict[str, Any] = {"type": "huggingface", "adapterName": adapter.name, "repository": path}
    if not cluster.secret:
        raise UserError(
            f"adapter {adapter.name}: the stack's controller fetches {path} from Hugging Face with a token only: "
            "kubernetes.secret=NAME of a secret with the key HF_TOKEN, or give folders in the column path"
        )
    if helm:
        source["credentials"] = {"secretName": cluster.secret, "secretKey": "HF_TOKEN"}
    else:
        source["credentialsSecretRef"] = {"name": cluster.secret, "key": "HF_TOKEN"}
    return source
