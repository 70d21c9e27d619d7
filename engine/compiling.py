"""torch.compile for the forward pass of training, where the machine can compile at all."""

import importlib.util
import os
import shutil

import torch
from torch import nn

from errors import ConfigError

CPP_COMPILERS = ("g++", "clang++", "c++")


def compile_forward(module: nn.Module, device: torch.device) -> None:
    """Compile what a call of the module does; its parameters keep their names.

    Shapes are left open, since every batch has its own.  Raises ConfigError where what compiles is missing.
    """
    lacking = missing_compiler(device)
    if lacking is not None:
        raise ConfigError(f"compile is true, but {lacking}: install it, or set compile to false")
    module.compile(dynamic=True)


def missing_compiler(device: torch.device) -> str | None:
    """What torch.compile would lack on a device, in words; None where it has what it needs."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "the package triton, which compiles for CUDA, is not there"
    named = os.environ.get("CXX")
    if any(shutil.which(name) for name in ([named] if named else CPP_COMPILERS)):
        return None
    return f"there is no C++ compiler ({named or ', '.join(CPP_COMPILERS)}) on the PATH"
