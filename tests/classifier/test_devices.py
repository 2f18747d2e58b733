"""Devices: what is asked for and cannot be had is said in a sentence."""

import pytest
import torch

from classifier import devices
from classifier.errors import InputError


def test_more_memory_than_there_is_is_told_with_what_was_asked_for():
    with (
        pytest.raises(
            InputError,
            match=r"Memory of cpu is short .*4000000000000000 bytes.*there is \d.* GiB.*--batch",
        ),
        devices.explain_out_of_memory(torch.device("cpu")),
    ):
        torch.empty(10**15)


def test_other_errors_are_left_as_they_are():
    with (
        pytest.raises(RuntimeError, match="shapes"),
        devices.explain_out_of_memory(torch.device("cpu")),
    ):
        torch.ones(2, 3) @ torch.ones(2, 3)
