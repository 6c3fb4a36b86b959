"""Files that the page of the service shows: they follow their schemas and name what there is."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from committed import ROOT

from palrp_onnx.cli.main import program

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
KSERVE, RAY = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))


def test_the_inference_service_follows_its_schema() -> None:
    schema = json.loads(Path(__file__).with_name("inference_service.json").read_text())
    jsonschema.validate(KSERVE, schema)
    (container,) = KSERVE["spec"]["predictor"]["containers"]
    name, *arguments = container["args"]
    command = program.get_command(click.Context(program), name)
    assert command is not None
    found = command.make_context(name, arguments).params
    ports = [each["containerPort"] for each in container["ports"]]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert ports == [found["port"]] == [*{probe["port"] for probe in probes}]
    assert (found["host"], found["models"]) == ("0.0.0.0", ("reviews=/mnt/models",))
    for probe in probes:
        assert f"`{probe['path']}`" in PAGE


def test_the_file_of_ray_names_what_there_is() -> None:
    pytest.importorskip("starlette")
    from msgspec import structs

    from palrp_onnx.serving import ServingOptions

    (application,) = RAY["applications"]
    fields = {each.name for each in structs.fields(ServingOptions)}
    assert application["args"].keys() <= fields
    assert application["import_path"] == "palrp_onnx.serving.ray:app"
    pytest.importorskip("ray.serve")
    schema: Any = importlib.import_module("ray.serve.schema")
    schema.ServeDeploySchema(**RAY)
    serving: Any = importlib.import_module("palrp_onnx.serving.ray")
    given = {**application["args"], "models": [str(ROOT / "models" / "digits-vit")]}
    deployments = [each["name"] for each in application["deployments"]]
    assert [serving.app(given)._bound_deployment.name] == deployments
