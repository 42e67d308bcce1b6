"""Reading and writing of PyTorch tensor files as NumPy arrays. Only files in PyTorch's pickle format need PyTorch."""
from __future__ import annotations

import os
import pickle

import numpy as np
import safetensors
import safetensors.numpy

from src.errors import UserError
from src.run.files import atomic_write


def read_state(path: str) -> dict[str, np.ndarray]:
    """Read the tensors of a `.safetensors` file, or of a PyTorch state dict (any other file name).

    PyTorch loads the file with `weights_only=True`, so no code of the file is executed.

    Returns:
        dict of name -> array. Floating-point tensors are converted to float32, other tensors are unchanged.

    Raises:
        UserError: the file does not exist, is not a file of tensors, or needs PyTorch, which is not installed.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path!r}.")
    state = _read_safetensors(path) if path.endswith(".safetensors") else _read_pickled(path)
    return {name: array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
            for name, array in state.items()}


def write_state(path: str, state: dict[str, np.ndarray]) -> None:
    """Write a dict of name -> array as `.safetensors`, or in PyTorch's format (any other file name), with `atomic_write`.

    Raises:
        UserError: the format needs PyTorch, which is not installed.
    """
    with atomic_write(path) as temporary:
        if path.endswith(".safetensors"):
            safetensors.numpy.save_file(state, temporary)
        else:
            torch = _import_torch(path)
            torch.save({name: torch.from_numpy(array) for name, array in state.items()}, temporary)


def _read_safetensors(path):
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged, or has tensors of a type that NumPy lacks ({error}).") from error


def _read_pickled(path):
    torch = _import_torch(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is damaged or not a file of PyTorch tensors ({reason}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} is not a plain state dict; save the state dict alone: torch.save(model.state_dict(), ...).")
    return {name: (value.float() if value.is_floating_point() else value).detach().numpy() for name, value in state.items()}


def _import_torch(path):
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path}: this format needs PyTorch; install it (pip install torch), or use a .safetensors "
                        "file.") from error
    return torch
