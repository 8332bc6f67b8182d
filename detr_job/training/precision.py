"""The precision that a run trains in: as the settings say, as the run began, or what is faster on this hardware."""

import time

import torch

from detr_job import hardware
from detr_job.family import build_family
from detr_job.training.memory_probe import largest_batch, try_step
from prepared_set.reader import LocalSet
from run_config.job.config import JobConfig
from run_config.job.keys import with_values

BF16_PAYS = 1.1
"""bf16 is chosen if it is measured to be so many times as fast as fp32. A smaller gain may be chance."""
_ROUNDS, _LONGEST_S = 4, 20.0


def with_precision(
    config: JobConfig, began: str | None, local: LocalSet, device: torch.device
) -> tuple[JobConfig, str, str]:
    """The configuration to train with, its precision (`bf16` or `fp32`), and the reason.

    `auto` stays in the configuration if it means that precision: the model may be used on other hardware later.

    began: the precision at the first start of this run, which it keeps if the device has it.

    Raises:
        JobError: The settings require bf16 and the device has none.
    """
    if config.training.precision != "auto":
        bf16, reason = hardware.use_bf16(config.training, device), "as the settings say"
    elif began in ("bf16", "fp32"):
        bf16, reason = began == "bf16", "in which this run began"
        if bf16 and not hardware.has_bf16(device):
            bf16, reason = False, f"this run began in bf16, which {hardware.hardware_name(device)} lacks"
    elif not hardware.has_bf16(device):
        bf16, reason = False, "the hardware has no bf16"
    elif hardware.use_bf16(config.training, device):
        bf16, reason = True, "the hardware computes it fast"
    else:  # a processor without AMX: a Xeon was slower in bf16, an EPYC faster
        speed = bf16_speed(config, local, device)
        bf16 = speed >= BF16_PAYS
        reason = f"a step in bf16 is {speed:.2f} times as fast as in fp32 on this processor"
        if not bf16:
            reason += f", and {BF16_PAYS:g} times would pay"
    precision = "bf16" if bf16 else "fp32"
    if hardware.use_bf16(config.training, device) is not bf16:
        config = with_values(config, {"training.precision": precision})
    return config, precision, reason


def bf16_speed(config: JobConfig, local: LocalSet, device: torch.device) -> float:
    """How many times as fast steps of a new network are in bf16, on one random image of the largest size.

    Measures the processor time of one thread, so that other programs hardly matter. Takes some seconds for the small
    model, and for others at most about 20 seconds and two steps more. Random numbers go on as before.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        family = build_family(config, len(local.class_names))
        network = family.network.to(device).to(memory_format=torch.channels_last).train()
        batch = largest_batch(local, config, 1).to(device)
        began = time.monotonic()
        seconds: dict[bool, list[float]] = {False: [], True: []}
        torch.set_num_threads(1)
        try:
            for number in range(_ROUNDS):
                for bf16, times in seconds.items():
                    start = time.process_time()
                    try_step(family, network, batch, device, bf16=bf16)
                    times.append(time.process_time() - start)
                if number and time.monotonic() - began > _LONGEST_S:
                    break
        finally:
            torch.set_num_threads(threads)
    # the first of each prepares the kernels
    return min(seconds[False][1:]) / min(seconds[True][1:])
