"""Where a run computes: one device, or one a process under torchrun. It knows nothing of networks' insides."""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from faceauth.errors import UsageError

EMULATES_BF16 = ("DEFAULT", "NO AVX", "AVX2")  # what torch says of processors without AVX-512


@dataclass(frozen=True, slots=True)
class Place:
    """This process's device, its rank among `world` processes, and whether it is the one that writes."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            distributed.barrier()

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            distributed.all_reduce(value)
        return value

    def autocast(self, bf16: bool) -> torch.autocast:
        """Work in bfloat16 where it is wanted and the processor does not emulate it, which takes ten times as long."""
        slow = self.device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in EMULATES_BF16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16 and not slow)

    def spread(self, network: nn.Module) -> nn.Module:
        """The network as each process trains it: gradients averaged; batch statistics shared on CUDA only."""
        if self.world == 1:
            return network
        if self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            return nn.parallel.DistributedDataParallel(network, device_ids=[self.device.index])
        return nn.parallel.DistributedDataParallel(network)


@contextlib.contextmanager
def place(device: str, threads: int) -> Iterator[Place]:
    """Take part in a run: on `device` (auto, cpu, cuda, cuda:1, mps), or as torchrun's environment says.

    Raises UsageError where there is no such device.
    """
    torch.set_num_threads(threads)
    _keep_pages()
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world == 1:
        yield Place(_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    here = _device(f"cuda:{local}" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    # Before there is a group: the defaults of its functions are that group otherwise, and its threads never end. One of
    # them that asks for the interpreter at the very end aborts the process (pytorch/pytorch#190489).
    from torch.distributed.nn import functional  # noqa: F401

    distributed.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield Place(here, rank, world)
    finally:
        distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"no device {name!r} here", "--device auto, cpu, cuda, cuda:N or mps") from error
    return device


def _keep_pages() -> None:
    """Let glibc keep freed memory: page faults on large tensors otherwise cost half of the time on a CPU."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
