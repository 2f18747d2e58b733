"""Preflight: a fit machine passes, and what does not hold is named."""

import json

import pytest
import torch

pytestmark = pytest.mark.usefixtures("server", "root")


def latest_table():
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        of_preflight = ArtifactFilter(key=ArtifactFilterKey(any_=["preflight"]))
        newest = client.read_artifacts(
            artifact_filter=of_preflight, sort=ArtifactSort.CREATED_DESC, limit=1
        )
    return json.loads(newest[0].data)


def test_a_fit_machine_passes_and_the_ui_shows_the_same_table(flows):
    done = flows("preflight", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["device"] in found["devices"]
    assert all(check["passed"] for check in found["checks"])
    assert found["timings"] == []
    shown = latest_table()
    assert [row["check"] for row in shown[:4]] == [check["name"] for check in found["checks"]]
    assert {"check": f"device {found['device']}", "result": "chosen"}.items() <= shown[4].items()


def test_timings_are_of_each_product_and_positive(flows):
    done = flows("preflight", "--timings", "--device", "cpu")
    assert done.code == 0
    timed = [line for line in done.out.splitlines() if line.endswith(" ms")]
    assert len(timed) >= 2
    assert all(float(line.split()[-2]) > 0 for line in timed)
    assert "requested" in done.out


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (torch.tensor, "NumPy and torch share memory"),
        (lambda array: from_numpy(array) * 1.001, "products of NumPy and torch agree"),
    ],
    ids=["a torch that copies", "a torch that is off"],
)
def test_what_does_not_hold_is_named_and_the_code_is_1(flows, monkeypatch, broken, named):
    monkeypatch.setattr(torch, "from_numpy", broken)
    done = flows("preflight")
    assert done.code == 1
    assert "FAILED" in done.out
    assert "Error: This machine is not fit to train. Failed checks:" in done.err
    assert named in done.err
    assert "Traceback" not in done.err
    assert any(row["result"] == "FAILED" and named in row["check"] for row in latest_table())


def test_a_wrong_gradient_is_found(flows, monkeypatch):
    """Right values, whose slope is off by a hundredth."""
    off = torch.Tensor.relu
    monkeypatch.setattr(
        torch.Tensor, "clamp", lambda self, **_: off(self) + 0.01 * (self - self.detach())
    )
    done = flows("preflight")
    assert done.code == 1
    assert "gradients of the network agree with finite differences" in done.err


def test_a_device_that_is_not_here_is_refused_with_those_that_are(flows):
    absent = "cuda" if not torch.cuda.is_available() else "mps"
    done = flows("preflight", "--device", absent)
    assert done.code == 2
    assert "choose auto or" in done.sentence


from_numpy = torch.from_numpy
