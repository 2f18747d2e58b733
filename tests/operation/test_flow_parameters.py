"""What a run may be given: names and numbers, and of paths those to data alone, never to code."""

import importlib

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from tests.conftest import PROJECT

MODULES = sorted(path.stem for path in (PROJECT / "flows").glob("[a-z]*.py"))
#: The texts that the form does not limit: the files to ingest, and names that are looked up or
#: checked in the run.
FREE = {
    "ingest.paths",
    "ingest.batch",
    "train.overrides.network",
    "retrain.overrides.network",
    "sweep.overrides.network",
    "sweep.choices",
    "sweep.seeds",
    "sweep.dask",  # an address, which the process allows
}


def all_flows():
    for module in MODULES:
        for value in vars(importlib.import_module(f"flows.{module}")).values():
            if isinstance(value, Flow) and value.fn.__module__ == f"flows.{module}":
                yield value


def free_texts(schema, definitions, name):
    """The names of the fields below a schema that take any text."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for alternative in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from free_texts(alternative, definitions, name)
    for field, inner in schema.get("properties", {}).items():
        yield from free_texts(inner, definitions, f"{name}.{field}")
    if schema.get("type") == "array":
        for inner in (schema.get("items", {}), *schema.get("prefixItems", ())):
            yield from free_texts(inner, definitions, name)
    limited = schema.keys() & {"enum", "const", "pattern"}
    anything = not schema.keys() & {"type", "anyOf", "allOf", "enum", "const", "properties"}
    if anything or (schema.get("type") == "string" and not limited):
        yield name


def test_no_parameter_of_any_flow_takes_a_path_to_code():
    found = {}
    for flow in all_flows():
        schema = parameter_schema(flow).model_dump()
        found[flow.name] = set(free_texts(schema, schema["definitions"], flow.name))
    assert found.keys() >= {"train", "retrain", "ingest", "preflight"}
    assert set().union(*found.values()) == FREE


def whole_numbers(schema, name):
    """The names of the whole numbers below a schema, each with its largest value."""
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and "enum" not in schema:
            yield name, schema.get("maximum", schema.get("exclusiveMaximum"))
        for key, inner in schema.items():
            yield from whole_numbers(inner, f"{name}.{key}")
    elif isinstance(schema, list):
        for inner in schema:
            yield from whole_numbers(inner, name)


def test_every_whole_number_fits_into_64_bits():
    """A run with a larger one is taken, and then no list of runs that holds it can be answered."""
    found = {}
    for flow in all_flows():
        found |= dict(whole_numbers(parameter_schema(flow).model_dump(), flow.name))
    assert len(found) > 20
    assert [name for name, largest in found.items() if largest is None or largest >= 2**63] == []


@pytest.mark.parametrize("name", ["../datasets/mnist", "classifier/datasets/mnist.py", "os:system"])
def test_a_path_is_no_name_of_a_dataset(flows, name):
    done = flows("train", "--dataset", name, "--dry-run")
    assert done.code == 2
    assert "dataset" in done.sentence


@pytest.mark.parametrize("name", ["os.system", "classifier/training/networks.py:_post", "build"])
def test_code_is_no_name_of_a_network(flows, root, name):
    done = flows("train", "--dataset", "folder", "--network", name, "--dry-run")
    assert done.code == 2
    assert "post" in done.sentence  # it lists what there is


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", ".."])
def test_a_path_is_no_name_of_a_batch(flows, root, name):
    done = flows("ingest", root.parent, "--batch", name)
    assert done.code == 2
    assert not root.exists()
