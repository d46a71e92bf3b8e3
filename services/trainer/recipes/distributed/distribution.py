"""The processes of a recipe that share its work: how they meet and agree, and what each is told; knows no task."""

import os
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from transformers import AutoConfig

from services.trainer.distribution import ZERO, Distribution
from services.trainer.recipes.distributed.ranks import FOLDER, MEETING, own_rank, world
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Spec
from services.trainer.recipes.models.device import device_type

T = TypeVar("T")


def join(job: JobDir, spec: Spec) -> Distribution:
    """Meets the other processes, once. Raises BadInput where there are not as many as the spec asks for."""
    asked = Distribution.of(spec.parameters)
    if world() != asked.devices:
        raise BadInput(
            f"The spec asks for {asked.devices} processes, and this is one of {world()}; "
            "start the recipe through services.trainer.recipes.distributed.ranks."
        )
    if asked.devices > 1 and not dist.is_initialized():
        gpu = device_type() == "cuda"
        if gpu:
            torch.cuda.set_device(own_rank())
        else:
            os.environ["DS_ACCELERATOR"] = "cpu"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            init_method=f"file://{job.path.resolve() / FOLDER / MEETING}",
            rank=own_rank(),
            world_size=world(),
        )
        if asked.engine in ZERO or asked.sequence > 1:
            meet_for_deepspeed()
    return asked


def agreed(mine: T) -> T:
    """What the leader has, on every process; a call of all of them, which also waits for all."""
    if not dist.is_initialized():
        return mine
    told = [mine]
    dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
    return told[0]


def wait() -> None:
    """Returns when all processes have called it."""
    if dist.is_initialized():
        gathered(None)


def gathered(mine: T) -> list[T]:
    """What each process has, in their order, on every one of them."""
    found: list[T] = [mine] * world()
    dist.all_gather_object(found, mine, group=_on_host())
    return found


def share_of(count: torch.Tensor) -> torch.Tensor:
    """What a mean over `count` things of this process is to be multiplied by, so that the mean over processes is that
    over the things of all; a call of all of them.
    """
    if not dist.is_initialized():
        return torch.ones((), device=count.device)
    total = count.clone()
    dist.all_reduce(total)
    return count * world() / total


_host_group: list[Any] = []


def _on_host() -> Any:
    """Processes that talk through the host's memory: objects need no GPU."""
    if not _host_group:
        _host_group.append(dist.new_group(backend="gloo"))
    return _host_group[0]


def loading(job: JobDir, spec: Spec) -> dict[str, Any]:
    """How `from_pretrained` shall share out the matrices of a model; nothing where it shall not."""
    asked = join(job, spec)
    if asked.tensor == 1:
        return {}
    from transformers.distributed import DistributedConfig

    _check_heads(job, asked.tensor)
    return {"distributed_config": DistributedConfig(tp_size=asked.tensor)}


def _check_heads(job: JobDir, size: int) -> None:
    """Raises BadInput for a base whose heads cannot be shared out, or which tells no way of sharing its matrices."""
    config = AutoConfig.from_pretrained(job.base, trust_remote_code=False).get_text_config()
    if not config.base_model_tp_plan:
        raise BadInput(
            f"Models of the kind {config.model_type} have no plan for sharing their matrices; "
            "leave distribution.tensor_parallel_size out, and take zero3 or fsdp."
        )
    heads = (config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads))
    if any(count % size for count in heads):
        raise BadInput(
            f"distribution.tensor_parallel_size is {size}, which must divide the {heads[0]} attention heads of the "
            f"base and its {heads[1]} heads of keys and values; choose another, or take zero3 or fsdp."
        )


def arguments(job: JobDir, spec: Spec, batch_size: int, accumulation: int, rows: int) -> dict[str, Any]:
    """What a trainer must be told beside its usual arguments; nothing for one process.

    The result tells how many rows an update takes on all devices, and how many of `rows` are left over each time they
    have been gone through, as every device takes whole batches.
    """
    asked = join(job, spec)
    if asked.devices == 1:
        return {}
    job.settings.update(effective_batch_size=batch_size * accumulation * asked.row_shares, devices=asked.devices)
    job.notes["rows_left_over"] = rows % (batch_size * asked.row_shares)
    told: dict[str, Any] = {"ddp_find_unused_parameters": False}
    if device_type() == "cpu" and asked.engine != "ddp":
        _take_cpus_for_devices(asked)
        told |= {"accelerator_config": {"use_configured_state": True}}
    elif device_type() == "cpu":
        told |= {"ddp_backend": "gloo"}
    if asked.engine in ZERO:
        told |= {"deepspeed": zero_config(asked), "use_cpu": False}  # else DeepSpeed is left out without a word
    if asked.engine == "tensor":
        told |= {"save_strategy": "no"}  # transformers 5.19 cannot go on from a checkpoint of such a model
    if asked.engine == "fsdp":
        told |= {"fsdp": True, "fsdp_config": {"version": 2}}
    return told


def zero_config(asked: Distribution) -> dict[str, Any]:
    """DeepSpeed's own settings; the optimizer is torch's, as in every other job, and nothing is compiled for it."""
    stage: dict[str, Any] = {"stage": ZERO[asked.sharding]}
    if asked.offload_optimizer:
        stage["offload_optimizer"] = {"device": "cpu", "pin_memory": device_type() == "cuda"}
    if asked.offload_weights:
        stage["offload_param"] = {"device": "cpu", "pin_memory": device_type() == "cuda"}
    if asked.sharding == "zero3":
        stage |= {"stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": stage,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }


def _take_cpus_for_devices(asked: Distribution) -> None:
    """Lets accelerate share a model among CPUs.

    DeepSpeed's ZeRO and torch's FSDP2 and tensor parallelism run there as anywhere, but accelerate 1.15 goes by a list
    of kinds of devices (`state.py`), on which CPUs do not stand.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    PartialState._reset_state()
    state = PartialState(cpu=True, backend="gloo")
    state.distributed_type = DistributedType.DEEPSPEED if asked.engine in ZERO else DistributedType.MULTI_GPU


def meet_for_deepspeed() -> None:
    """Tells DeepSpeed of the processes that have met. What it would compile for CPUs that share memory is left out:
    a minute of g++ in each new place, for sums that gloo takes as well.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if device_type() == "cuda" else "gloo", auto_mpi_discovery=False, verbose=False)
