"""Devices: a lack of them, or of their memory, is one sentence."""

import os

import pytest
import torch

from classifier import devices
from classifier.errors import ArgumentError, InputError


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


@pytest.mark.parametrize(
    ("name", "here", "there_are"), [("cpu", 2, "2 cores"), ("cuda", 3, "3 CUDA devices")]
)
def test_more_devices_than_there_are_are_refused_with_the_remedy(
    name, here, there_are, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(here)), raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    devices.check_count(here, name)
    sentence = (
        f"^--devices is {here + 1}, and {there_are} can be used here: give at most {here}\\.$"
    )
    with pytest.raises(ArgumentError, match=sentence):
        devices.check_count(here + 1, name)


def test_one_device_of_a_mac_is_all_there_is():
    devices.check_count(1, "mps")
    with pytest.raises(ArgumentError, match="1 MPS device can be used here: give at most 1"):
        devices.check_count(2, "mps")
