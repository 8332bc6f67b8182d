"""Check what a run needs from its installation: the store's credentials, a node pool and GPUs."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from object_store import WrongCredentials
from run_check.errors import CheckError
from run_check.local_gpu import local_gpu
from run_config.errors import ConfigError
from run_config.installation import Installation, NodePool
from run_config.parameters import Value


def require_keys(installation: Installation, environment: Mapping[str, str] = os.environ) -> None:
    """Raise CheckError if the container did not get the credentials of the store's Secret.

    The Secret is optional for the pod, so that a person reads this message instead of finding a pod that waits forever.
    """
    secret, names = installation.store_secret, installation.store_secret_keys
    keys = {"AWS_ACCESS_KEY_ID": names.access_key_id, "AWS_SECRET_ACCESS_KEY": names.secret_access_key}
    missing = [key for variable, key in keys.items() if not environment.get(variable)]
    if secret and missing:
        files = " ".join(f"--from-file={key}" for key in keys.values())
        absent = " and no ".join(missing)
        raise CheckError(
            f"the secret {secret} with the store's keys is missing in this namespace, or has no {absent}: "
            f"write each key into a file of its name and run `kubectl create secret generic {secret} {files}`"
        )


@contextlib.contextmanager
def naming_the_secret(installation: Installation | None) -> Iterator[None]:
    """Name the Secret when the store refuses the credentials, since nobody typed them into this container."""
    try:
        yield
    except WrongCredentials as error:
        if installation is None or not installation.store_secret:
            raise
        raise CheckError(f"{error}. They come from the secret {installation.store_secret}: fix it there") from error


def machine(values: Mapping[str, Value], installation: Installation) -> list[str]:
    """What the run gets, one sentence each, if pool, GPUs and device fit together.

    Raises ConfigError: when they do not; the message says what to choose.
    """
    count, device = int(values["gpu-count"] or 0), str(values["device"])
    name = str(values["sys-node-pool"] or "")
    pool = installation.pool(name) if installation.node_pools or name else None
    if device == "cuda":
        _require_gpus(count, pool, installation)
    if pool is not None and count > pool.gpu_count:
        raise ConfigError(_too_many(count, pool, installation))
    findings = [f"node pool: {pool.name}, GPUs: {count}" if pool else f"GPUs: {count}"]
    if device == "cpu" and count:
        findings.append(f"warning: device=cpu does not use the GPUs that gpu-count={count} reserves; set gpu-count=0")
    elif count > 1:
        findings.append(f"warning: training uses one GPU, but gpu-count={count} reserves {count}")
    return findings


def trains_on_gpu(values: Mapping[str, Value], installation: Installation | None) -> bool:
    """Whether training gets a GPU: of the node pool, or without an installation of this machine.

    Raises ConfigError: when there is no such node pool.
    """
    device, name = values["device"], str(values["sys-node-pool"] or "")
    if installation is None:
        return device == "cuda" or (device == "auto" and local_gpu())
    pool = installation.pool(name) if installation.node_pools or name else None
    return device != "cpu" and bool(values["gpu-count"]) and (pool is None or pool.gpu_count > 0)


def _require_gpus(count: int, pool: NodePool | None, installation: Installation) -> None:
    if pool is not None and not pool.gpu_count:
        others = [one.name for one in installation.node_pools if one.gpu_count]
        instead = f"choose sys-node-pool={' or '.join(others)}, or " if others else "choose "
        raise ConfigError(
            f"device=cuda needs a GPU, and the pool {pool.name} has none: {instead}device=cpu with gpu-count=0."
        )
    if not count:
        raise ConfigError("device=cuda needs a GPU, and gpu-count is 0: set gpu-count=1, or choose device=cpu.")


def _too_many(count: int, pool: NodePool, installation: Installation) -> str:
    others = [one.name for one in installation.node_pools if one.gpu_count >= count]
    instead = f", or choose sys-node-pool={' or '.join(others)}" if others else ""
    return f"gpu-count={count} is more than the pool {pool.name} allows: set it to at most {pool.gpu_count}{instead}."
