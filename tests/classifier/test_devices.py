"""Devices: a lack of memory is one sentence."""

import pytest
import torch

from classifier import devices
from classifier.errors import InputError


def test_a_lack_of_memory_is_named_with_what_was_asked_for():
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
