"""Processor, GPUs, threads, memory and disk, and what of them makes training slow."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
import warnings
from functools import partial
from pathlib import Path

from pwm.core.processes import available_cores
from pwm.doctor.section import Section, gibibytes, shown

_INSTRUCTIONS = (
    "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16",
)  # fmt: skip
_LITTLE = 2**30  # bytes of memory, or on a disk
_FIRST_WITH_BFLOAT16 = 8  # compute capability of a GPU
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def processor() -> Section:
    """The processor, its cores and instructions, and the fused kernels for it."""
    section = Section()
    section.ask("name", lambda: _cpu_info("model name", "Hardware") or platform.processor())
    section.ask("cores", _cores)
    section.ask("instructions", _instructions)
    section.ask("torch uses", _torch_instructions)
    section.ask("bfloat16", partial(_bfloat16, section))
    section.ask("fused kernels", partial(_kernels, section))
    return section


def threads() -> Section:
    """How many threads torch has, and whether the cores for them are free."""
    section = Section()
    section.ask("torch", partial(_torch_threads, section))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        section.ask(name, partial(os.environ.get, name))
    section.ask("load", lambda: "{:.1f} {:.1f} {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg()))
    return section


def gpus() -> Section:
    """The GPUs that torch sees, or why it sees none."""
    section = Section()
    section.ask("driver", _driver)
    section.ask("CUDA_VISIBLE_DEVICES", partial(os.environ.get, "CUDA_VISIBLE_DEVICES"))
    section.ask("device=auto", partial(_devices, section))
    return section


def space() -> Section:
    """Free memory, and room on the disks that pwm writes to."""
    section = Section()
    section.ask("memory", partial(_memory, section))
    section.ask("here", lambda: _disk(section, Path.cwd()))
    section.ask("cache", partial(_cache, section))
    return section


def _cpu_info(*keys: str) -> str:
    """The first of some entries of /proc/cpuinfo that is there, else nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    for key in keys:
        for line in lines:
            if line.split(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    return ""


def _cores() -> str:
    text = f"{os.cpu_count()}, of which this process may use {available_cores()}"
    quota = _quota()
    return text if quota is None else f"{text}, for as much time as {quota:g} have"


def _quota() -> float | None:
    """Of a container, how many cores' time it may take; None without such a limit."""
    try:
        limit, period = _CPU_QUOTA.read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _instructions() -> str:
    flags = _cpu_info("flags", "Features").split()
    return " ".join(name for name in _INSTRUCTIONS if name in flags) or "not known"


def _torch_instructions() -> str:
    import torch

    return torch.backends.cpu.get_cpu_capability()


def _bfloat16(section: Section) -> str:
    import torch

    from pwm.runtime.processor import slow_bfloat16

    sentence = slow_bfloat16(torch.device("cpu"))
    section.warn(sentence)
    return "yes" if sentence is None else "no"


def _kernels(section: Section) -> str:
    """Whether the C kernels can be built; builds them where they have not been."""
    from pwm.runtime.kernels.native import cache_directory, library

    before, begun = set(cache_directory().glob("*.so")), time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        built = library() is not None
    if not built:
        why = str(caught[-1].message) if caught else "the fast kernels could not be built."
        section.warn(why)
        return "no"
    if set(cache_directory().glob("*.so")) == before:
        return "built before"
    return f"built now, in {time.perf_counter() - begun:.1f} s"


def _torch_threads(section: Section) -> str:
    import torch

    from pwm.runtime.processor import waiting_threads

    count = torch.get_num_threads()
    section.warn(waiting_threads(torch.device("cpu")) or more_threads_than_cores(count))
    return str(count)


def more_threads_than_cores(count: int) -> str | None:
    """A sentence where torch has more threads than cores, or a container's share of them, run."""
    cores = min(available_cores(), _quota() or float("inf"))
    if count <= max(cores, 1):
        return None
    return (
        f"torch has {count} threads, and this process the time of {cores:g} cores, so threads wait "
        f"for each other; OMP_NUM_THREADS={max(int(cores), 1)} may be much faster."
    )


def _driver() -> str | None:
    """The version of NVIDIA's driver; None without one."""
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=5)
        if said.returncode == 0:
            return said.stdout.split("\n")[0].strip()
    version = Path("/proc/driver/nvidia/version")
    return version.read_text().splitlines()[0] if version.is_file() else None


def _devices(section: Section) -> str:
    import torch

    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs alone"
    if not torch.cuda.is_available():
        section.warn(_without_gpu(torch.version.cuda is not None))
        return f"cpu (this torch is built for {built_for})"
    for i in range(torch.cuda.device_count()):
        section.ask(f"cuda:{i}", partial(_gpu, section, i))
    section.ask("fused kernels", partial(_triton, section))
    return f"cuda (this torch is built for {built_for})"


def _without_gpu(built_for_cuda: bool) -> str:
    if not Path("/proc/driver/nvidia/version").exists() and not shutil.which("nvidia-smi"):
        return "there is no NVIDIA GPU, so everything learns on the CPU."
    if built_for_cuda:
        return (
            "there is a driver for NVIDIA GPUs, but torch sees no GPU, so everything learns on the "
            "CPU; compare the driver with the CUDA that torch was built for."
        )
    return (
        "there is a driver for NVIDIA GPUs, but this torch is built for CPUs alone; install one "
        "with CUDA, see https://pytorch.org/get-started/."
    )


def _gpu(section: Section, index: int) -> str:
    import torch

    facts = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    if facts.major < _FIRST_WITH_BFLOAT16:
        section.warn(
            f"cuda:{index} has no bfloat16 units, and precision=auto means bfloat16 on a GPU; "
            "give precision=float32."
        )
    return (
        f"{facts.name}, compute capability {facts.major}.{facts.minor}, "
        f"{gibibytes(free)} of {gibibytes(total)} free"
    )


def _triton(section: Section) -> str:
    from pwm.runtime.kernels.normed_activation import has_kernels

    if has_kernels("cuda"):
        return "by Triton, built at the first update"
    section.warn("Triton is not installed, so layers on a GPU run without fused kernels.")
    return "no"


def _memory(section: Section) -> str:
    from pwm.runtime.device import free_memory

    free = free_memory()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < _LITTLE:
        section.warn(f"only {gibibytes(free)} of memory are free; a machine that swaps is slow.")
    return f"{gibibytes(free)} of {gibibytes(total)} free"


def _cache(section: Section) -> str:
    from pwm.runtime.kernels.native import cache_directory

    return _disk(section, cache_directory())


def _disk(section: Section, path: Path) -> str:
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    usage = shutil.disk_usage(existing)
    if usage.free < _LITTLE:
        section.warn(f"only {gibibytes(usage.free)} are free on the disk of {shown(path)}.")
    writable = "" if os.access(existing, os.W_OK | os.X_OK) else ", not writable"
    return f"{shown(path)}: {gibibytes(usage.free)} of {gibibytes(usage.total)} free{writable}"
