"""Dockerfile and deploy/: what is built and started elsewhere, checked without a cluster.

The image itself is built and run by hand: docs/decisions.md says how that was done.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from docker.types import HostConfig
from packaging.utils import canonicalize_name
from prefect.utilities.templating import apply_values, find_placeholders

from tests.conftest import PROJECT, CommandLine

DEPLOY = PROJECT / "deploy"
DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
TEMPLATES = {
    name: json.loads((DEPLOY / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("docker", "kubernetes")
}
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
#: The least version that validates, and the newest.
KUBERNETES = ("1.30.0", kubernetes_validate.latest_version())
#: Prefect's worker asks for these where Kubernetes knows no such field.
NO_FIELDS_OF_A_POD = ("parallelism", "completions")
SECRET = re.compile(r"LOCKS|SECRET|KEY|AUTH|PASSWORD|TOKEN|CONNECTION")


def instructions(name):
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def configuration(place, /, **values):
    """What a worker makes of a template, with these values beside its defaults."""
    template = TEMPLATES[place]
    variables = template["variables"]["properties"].items()
    defaults = {name: each["default"] for name, each in variables if "default" in each}
    return apply_values(template["job_configuration"], defaults | values, warn_on_notset=False)


def job(**values):
    """The manifest of a run's job, as Kubernetes gets it."""
    values = {"name": "run", "command": ["prefect", "flow-run", "execute"], "labels": {}} | values
    manifest = configuration("kubernetes", **values)["job_manifest"]
    for name in NO_FIELDS_OF_A_POD:
        del manifest["spec"]["template"]["spec"][name]
    return manifest


def pods():
    """The pod specifications by name: server, worker, and a run."""
    found = {"run": job()["spec"]["template"]["spec"]}
    for manifest in MANIFESTS:
        if manifest["kind"] == "Deployment":
            found[manifest["metadata"]["name"]] = manifest["spec"]["template"]["spec"]
    return found


PODS = pods()


def image_user():
    (user,) = instructions("USER")
    return user


def test_the_linter_of_dockerfiles_has_nothing_to_say():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [hadolint, "Dockerfile"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_ends_with_a_numeric_user_who_is_not_root():
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image_user())
    assert not re.search(r"^(RUN|COPY|ADD)", DOCKERFILE.partition("\nUSER ")[2], re.MULTILINE)


def test_the_base_image_is_an_argument():
    assert instructions("FROM") == ["${BASE}"]
    assert "BASE=python:3.11-slim" in instructions("ARG")


@pytest.mark.parametrize(
    ("torch", "index", "code"), [(None, "", 1), (None, "file:///index", 0), ("cuda", "", 0)]
)
def test_the_cpu_build_is_the_default_and_needs_an_index(torch, index, code):
    defaults = dict(line.split("=") for line in instructions("ARG"))
    guard = next(line for line in instructions("RUN") if "docs/install.md" in line)
    done = subprocess.run(
        ["sh", "-c", guard],
        env={"TORCH": torch or defaults["TORCH"], "RETRAIN_TORCH_INDEX": index},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stderr.count("\n") == code


def test_the_image_gets_what_runs_and_nothing_else():
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = settings["tool"]["setuptools"]["packages"]["find"]["include"]
    needed = {name.removesuffix("*") for name in packages} | {"deploy"}
    assert {name for name in admitted if (PROJECT / name).is_dir()} == needed
    assert {name for name in admitted if not (PROJECT / name).exists()} == set()
    read = {"automations.yaml", "prefect.yaml", "pyproject.toml"}
    assert read | {"requirements.txt", "requirements-scale.txt"} <= admitted


def test_the_packages_of_the_workers_are_pinned_and_clash_with_no_lock():
    def pins(path):
        lines = path.read_text(encoding="utf-8").splitlines()
        found = (line.partition("==") for line in lines if line and line[0] not in "#-")
        return {canonicalize_name(name): version for name, _, version in found}

    ours = pins(DEPLOY / "requirements.txt")
    assert {"prefect-docker", "prefect-kubernetes"} <= ours.keys()
    assert [name for name, version in ours.items() if not re.fullmatch(r"[\w.]+", version)] == []
    locked = pins(PROJECT / "requirements.txt") | pins(PROJECT / "requirements-scale.txt")
    assert ours.keys() & locked.keys() == set()


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: each["metadata"]["name"])
def test_a_manifest_is_valid(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"gpus": 0},
        {"data_volume": {"name": "data", "persistentVolumeClaim": {"claimName": "retrain-data"}}},
    ],
    ids=str,
)
def test_the_job_of_a_run_is_valid(values, version):
    kubernetes_validate.validate(job(**values), version, strict=True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_variable_of_a_template_is_used_and_told_of(name):
    template = TEMPLATES[name]
    used = {each.name for each in find_placeholders(json.dumps(template["job_configuration"]))}
    assert used == template["variables"]["properties"].keys()
    assert all(each["title"] for each in template["variables"]["properties"].values())


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_right_that_it_does_not_need(name):
    pod, (container,) = PODS[name], PODS[name]["containers"]
    user, group = map(int, image_user().split(":"))
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["enableServiceLinks"] is False
    speaks_to_kubernetes = name == "retrain-worker"
    assert pod.get("automountServiceAccountToken", True) is speaks_to_kubernetes


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_a_limit_of_memory_time_to_end_and_places_to_write(name):
    pod, (container,) = PODS[name], PODS[name]["containers"]
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert pod["terminationGracePeriodSeconds"] >= (60 if name == "run" else 30)
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert places.keys() == {volume["name"] for volume in pod["volumes"]}
    written = set(places.values())
    assert written == ({"/data", "/tmp", "/dev/shm"} if name == "run" else {"/tmp"})  # noqa: S108


def test_the_run_of_a_job_goes_back_to_the_queue_when_its_pod_is_evicted():
    assert job()["spec"]["backoffLimit"] == 0  # then the worker asks Prefect for that on TERM
    assert PODS["run"]["restartPolicy"] == "Never"


def test_a_run_gets_one_gpu_unless_another_number_is_asked_for():
    def limit(**values):
        (container,) = job(**values)["spec"]["template"]["spec"]["containers"]
        return container["resources"]["limits"]["nvidia.com/gpu"]

    assert (limit(), limit(gpus=4), limit(gpus=0)) == (1, 4, 0)
    (taint,) = PODS["run"]["tolerations"]
    assert taint["key"] == "nvidia.com/gpu"


def test_a_container_of_docker_has_the_same_user_limits_and_gpu():
    found = configuration("docker")
    options = found["container_create_kwargs"]
    assert options.pop("user") == image_user()
    host = HostConfig(version="1.45", mem_limit=found["mem_limit"], **options)
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] > 0
    assert host["Tmpfs"].keys() == {"/tmp"}  # noqa: S108
    assert host["Init"]  # it hands TERM on, and buries what a run leaves behind
    (gpu,) = host["DeviceRequests"]
    assert (gpu["Count"], gpu["Capabilities"]) == (1, [["gpu"]])
    assert found["volumes"] == ["retrain-data:/data"]
    without = configuration("docker", device_requests=[])["container_create_kwargs"]
    assert without["device_requests"] == []


def plain_values():
    """Every variable that is spelled out, as (where, name, value)."""
    for name, template in TEMPLATES.items():
        for variable, value in template["variables"]["properties"]["env"]["default"].items():
            yield name, variable, value
    for name, pod in PODS.items():
        for item in pod["containers"][0].get("env", []):
            yield name, item["name"], item.get("value", "")


def test_secrets_are_named_and_nowhere_spelled_out():
    reference = re.compile(r"\{\{ prefect\.blocks\.secret\.[a-z-]+ \}\}")
    names_of_secrets = re.compile(r".*_SECRET_(NAME|KEY)")
    told = [
        (where, name)
        for where, name, value in plain_values()
        if SECRET.search(name)
        and value
        and not reference.fullmatch(value)
        and not names_of_secrets.fullmatch(name)
    ]
    assert told == []
    for path in (PROJECT / "Dockerfile", *DEPLOY.iterdir()):
        assert not re.search(r"://[^/\s\"]*:[^/\s\"]*@", path.read_text(encoding="utf-8"))
    assert {manifest["kind"] for manifest in MANIFESTS} & {"Secret", "ConfigMap"} == set()


def test_a_run_gets_remote_and_locks_in_both():
    (container,) = PODS["run"]["containers"]
    (locks,) = (item for item in container["env"] if item["name"] == "RETRAIN_LOCKS")
    assert locks["valueFrom"] == {"secretKeyRef": {"name": "retrain", "key": "RETRAIN_LOCKS"}}
    assert container["envFrom"] == [{"secretRef": {"name": "retrain"}}]
    for name in TEMPLATES:
        environment = configuration(name)["env"]
        assert environment["RETRAIN_REMOTE"].startswith("s3://")
        assert environment["PREFECT_HOME"] == "/tmp/prefect"  # noqa: S108 - not the worker's


def test_the_worker_makes_its_pool_of_the_template_and_has_what_it_asks_kubernetes_for():
    (container,) = PODS["retrain-worker"]["containers"]
    assert container["args"][-2:] == ["--base-job-template", "deploy/kubernetes.json"]
    place = TEMPLATES["kubernetes"]["variables"]["properties"]["namespace"]["default"]
    assert {manifest["metadata"]["namespace"] for manifest in MANIFESTS} == {place}
    (role,) = (manifest for manifest in MANIFESTS if manifest["kind"] == "Role")
    rights = {kind: set(rule["verbs"]) for rule in role["rules"] for kind in rule["resources"]}
    assert rights["jobs"] == {"get", "list", "watch", "create", "patch", "delete"}
    assert {kind for kind, verbs in rights.items() if verbs - {"get", "list", "watch"}} == {"jobs"}


@pytest.fixture(scope="module")
def deployed(server):
    """Make a work pool of each template, and deploy to it; calling it gives the deployments."""
    from prefect.blocks.system import Secret
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    for name in ("retrain-locks", "aws-access-key-id", "aws-secret-access-key"):
        Secret(value=f"the value of {name}").save(name, overwrite=True)
    others = {"elsewhere": {}}
    with get_client(sync_client=True) as client:
        for name, template in (TEMPLATES | others).items():
            kind = name if name in TEMPLATES else "process"
            client.create_work_pool(
                WorkPoolCreate(name=name, type=kind, base_job_template=template)
            )

    def deploy(pool):
        done = CommandLine(PROJECT, server)("deploy", "--pool", pool)
        assert done.returncode == 0, done.stderr
        with get_client(sync_client=True) as client:
            return client.read_deployments(), client.read_work_queue_by_name(
                "training", work_pool_name=pool
            )

    return deploy


@pytest.mark.parametrize("pool", TEMPLATES)
def test_deployments_go_to_the_pool_that_is_named_and_find_the_project_in_the_image(deployed, pool):
    deployments, queue = deployed(pool)
    asked = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert sorted(each.entrypoint for each in deployments) == sorted(
        each["entrypoint"] for each in asked
    )
    assert {each.work_pool_name for each in deployments} == {pool}
    (folder,) = instructions("WORKDIR")
    step = {"prefect.deployments.steps.set_working_directory": {"directory": folder}}
    assert all(each.pull_steps == [step] for each in deployments)
    assert queue.concurrency_limit == 1


def test_deployments_of_another_process_pool_run_in_this_folder(deployed):
    deployments, _ = deployed("elsewhere")
    assert {each.work_pool_name for each in deployments} == {"elsewhere"}
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(PROJECT)}}
    assert all(each.pull_steps == [step] for each in deployments)


def test_a_run_in_docker_gets_the_values_of_the_secret_blocks(deployed):
    from prefect.workers.base import BaseJobConfiguration

    made = BaseJobConfiguration.from_template_and_values(TEMPLATES["docker"], {"env": {"A": "b"}})
    environment = asyncio.run(made).env
    assert environment["RETRAIN_LOCKS"] == "the value of retrain-locks"
    assert environment["AWS_SECRET_ACCESS_KEY"] == "the value of aws-secret-access-key"  # noqa: S105
    assert environment["A"] == "b"


def test_an_unknown_pool_is_one_sentence(server):
    done = CommandLine(PROJECT, server)("deploy", "--pool", "nowhere")
    assert done.returncode == 1
    assert "Error: This server has no work pool 'nowhere': make it first" in done.stderr


@pytest.mark.parametrize("pool", ["", " ", "?", "#", "a/b", "..", "new\nline"])
def test_what_is_no_name_of_a_pool_is_one_sentence(server, flows, monkeypatch, pool):
    monkeypatch.setenv("PREFECT_API_URL", server)
    done = flows("deploy", "--pool", pool)
    assert done.code == 2
    assert done.sentence == f"--pool is {pool!r}: give the name of a work pool."


def test_systemd_takes_the_unit_of_the_docs(tmp_path):
    if (systemd := shutil.which("systemd-analyze")) is None:
        pytest.skip("there is no systemd-analyze here: it is in Debian's package `systemd`")
    operation = (PROJECT / "docs" / "operation.md").read_text(encoding="utf-8")
    (unit,) = re.findall(r"```ini\n(.*?)```", operation, re.DOTALL)
    assert "/srv/image-retraining/run ui" in unit
    file = tmp_path / "image-retraining.service"
    file.write_text(unit.replace("/srv/image-retraining", str(PROJECT)))
    done = subprocess.run([systemd, "verify", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
