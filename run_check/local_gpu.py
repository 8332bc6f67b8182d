"""Whether training on this machine would use a GPU, without importing torch."""

import ctypes
from importlib.util import find_spec
from pathlib import Path


def local_gpu() -> bool:
    """Whether the driver offers a GPU of NVIDIA, and the installed PyTorch was built with CUDA."""
    torch = find_spec("torch")
    folders = torch.submodule_search_locations if torch is not None else None
    if not folders or not any(Path(folder, "lib", "libtorch_cuda.so").is_file() for folder in folders):
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
