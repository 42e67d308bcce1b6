"""Files of PyTorch tensors as numpy arrays; PyTorch is needed for its own format only."""
from __future__ import annotations

import os
import pickle

import numpy as np
import safetensors
import safetensors.numpy

from src.errors import UserError
from src.files import whole_file


def read_state(path: str) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` file, or of a state dict saved by PyTorch (any other name).

    PyTorch reads with `weights_only=True`, which runs no code of the file.

    Returns:
        dict of name -> array; floating-point tensors as float32, others as they are.

    Raises:
        UserError: no such file, not a file of tensors, or PyTorch is needed and not installed.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path!r}.")
    state = _read_safetensors(path) if path.endswith(".safetensors") else _read_pickled(path)
    return {name: array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
            for name, array in state.items()}


def write_state(path: str, state: dict[str, np.ndarray]) -> None:
    """Write a dict of name -> array as `.safetensors`, or in PyTorch's format (any other name).

    The file gets its name when it is complete.

    Raises:
        UserError: PyTorch is needed and not installed.
    """
    with whole_file(path) as temporary:
        if path.endswith(".safetensors"):
            safetensors.numpy.save_file(state, temporary)
        else:
            torch = _import_torch(path)
            torch.save({name: torch.from_numpy(array) for name, array in state.items()}, temporary)


def _read_safetensors(path):
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged, or holds tensors that numpy does not know ({error}).") from error


def _read_pickled(path):
    torch = _import_torch(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is damaged, or not a plain state dict of PyTorch ({reason}).") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}; save the state dict alone: torch.save(model.state_dict(), ...).")
    others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(f"{path}: {others[0]!r} is not a tensor; save the state dict alone: torch.save(model.state_dict(), ...).")
    return {name: (value.float() if value.is_floating_point() else value).detach().numpy() for name, value in state.items()}


def _import_torch(path):
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path}: this format needs PyTorch, which nothing else here does; install it (pip install torch), "
                        "or use a .safetensors file.") from error
    return torch
