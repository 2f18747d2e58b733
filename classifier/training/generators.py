"""The states of torch's global generators, from which layers such as dropout draw."""

import torch
from torch import Tensor


def global_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's global generators, by kind of device."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def set_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Set the states that were saved on this kind of device."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif "mps" in states and device.type == "mps":
        torch.mps.set_rng_state(states["mps"])
