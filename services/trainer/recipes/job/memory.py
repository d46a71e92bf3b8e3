"""The most memory a recipe held in each of its phases, and the energy its GPUs took; knows no job."""

import resource
import sys
from pathlib import Path

from services.trainer.recipes.models.device import accelerator

#: The phase that begins where a recipe reports the words on the left; before the first it imports.
BEGINS = {"reading": "load", "training": "train", "saving": "save"}
PROC = Path("/proc/self")


class Peaks:
    """High-water marks in MB (10^6 bytes), put back whenever a phase ends.

    Linux puts back its own (`VmHWM`) for who writes 5 to `clear_refs` (proc(5)); where that is not permitted, and on
    other systems, only the peak of the whole is told.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._phase = "import"
        self._found: dict[str, float] = {}
        self._whole = 0.0
        self._cleared = True
        self._joules: float | None = None

    def phase(self, reported: str) -> None:
        """Takes in what a recipe reports as its phase; words that begin none are passed over."""
        if reported not in BEGINS:
            return
        self._end()
        self._phase = BEGINS[reported]
        if self._joules is None:
            self._joules = gpu_joules()

    def figures(self) -> dict[str, float]:
        """`peak_rss_mb`, `peak_rss_mb_<phase>` where known, `peak_gpu_mb_<phase>` and `energy_j` where a GPU tells."""
        self._end()
        joules = gpu_joules()
        energy = {} if joules is None or self._joules is None else {"energy_j": joules - self._joules}
        known = {name: peak for name, peak in self._found.items() if self._cleared or "gpu" in name}
        return {**known, **energy, "peak_rss_mb": self._whole}

    def _end(self) -> None:
        peak = self._peak_rss_mb()
        self._whole = max(self._whole, peak)
        self._note(f"peak_rss_mb_{self._phase}", peak)
        self._cleared = self._cleared and self._clear()
        found = accelerator()
        if hasattr(found, "max_memory_allocated"):  # Apple's shares the host's memory, and counts no peak of its own
            gpus = range(found.device_count())
            self._note(f"peak_gpu_mb_{self._phase}", sum(map(found.max_memory_allocated, gpus)) / 1e6)
            for gpu in gpus:
                found.reset_peak_memory_stats(gpu)

    def _note(self, name: str, peak: float) -> None:
        self._found[name] = max(peak, self._found.get(name, 0.0))

    def _peak_rss_mb(self) -> float:
        try:
            lines = (self._proc / "status").read_text().splitlines()
        except OSError:
            lines = []
        marks = [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")]
        if marks:
            return marks[0]
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6  # bytes there, KiB on Linux

    def _clear(self) -> bool:
        try:
            (self._proc / "clear_refs").write_text("5")
        except OSError:
            return False
        return True


def gpu_joules() -> float | None:
    """What the GPUs of this process have taken since their driver was loaded, by NVML; None where one does not tell.

    Whatever else runs on them counts as well.
    """
    cuda = accelerator()
    if cuda is None or cuda.__name__ != "torch.cuda":
        return None
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        names = [f"GPU-{cuda.get_device_properties(gpu).uuid}" for gpu in range(cuda.device_count())]
        found = [pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(each)) for each in names]
    except pynvml.NVMLError:
        return None
    return float(sum(found)) / 1000  # NVML counts millijoules
