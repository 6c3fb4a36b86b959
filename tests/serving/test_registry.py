"""Models that are served: their names, and files that change while they are."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from committed import MODELS

pytest.importorskip("starlette")
from serving_options import serving
from starlette.requests import Request

from palrp_onnx.api.loaded import LoadedModel
from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.serving import served
from palrp_onnx.serving.app import Service
from palrp_onnx.serving.guard import NOTES, Notes
from palrp_onnx.serving.lane import Lane
from palrp_onnx.serving.options import Place, ServingOptions, places
from palrp_onnx.serving.refusals import Refusal
from palrp_onnx.serving.registry import Registry
from palrp_onnx.serving.served import Served, beside


@pytest.mark.quick
def test_names_of_models(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"")
    texts = [str(MODELS / "reviews-rope"), str(MODELS / "reviews-bert" / "model.onnx")]
    texts += [str(tmp_path / "other.onnx"), f"mine={MODELS / 'reviews-rope'}"]
    found = places(texts)
    assert [each.name for each in found] == ["reviews-rope", "reviews-bert", "other", "mine"]
    assert all(Path(each.path).is_absolute() for each in found)
    for wrong in ([], [texts[0], texts[0]], [f"a b={texts[0]}"]):
        with pytest.raises(UsageError):
            places(wrong)
    with pytest.raises(InputError):
        Place.parse("missing.onnx")
    with pytest.raises(UsageError, match="no room"):
        ServingOptions(models=found, queue=8)
    for seconds in ({"timeout": math.inf}, {"timeout": math.nan}, {"reload": math.inf}):
        with pytest.raises(UsageError, match="number of seconds"):
            ServingOptions(models=found, **seconds)
    options = ServingOptions(models=found, loading={"bind": {"a": "ids"}}, fail_on=("truncated",))
    assert ServingOptions.decoded(options.encoded()) == options


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not what():
            await asyncio.sleep(0.02)


def test_a_changed_file_is_opened_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """The digest decides; while there is nothing better, the old model answers."""
    folder = tmp_path / "m"
    shutil.copytree(MODELS / "digits-vit", folder)
    options = ServingOptions(models=places([str(folder)]), reload=0.05)

    def replace(data: bytes) -> None:
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").replace(folder / "model.onnx")

    async def run() -> None:
        registry = Registry(options)
        with pytest.raises(Refusal):
            registry.lane("m")
        await registry.start()
        first, data = registry.lane("m"), (folder / "model.onnx").read_bytes()

        def counted(outcome: str) -> float:
            metric = registry.metrics.reloads.labels("m", outcome)
            return float(metric._value.get())

        replace(data)  # another file with the same content
        await asyncio.sleep(0.5)
        assert registry.lane("m") is first
        replace(data[:-100])
        await until(lambda: counted("failed") == 1)
        assert registry.lane("m") is first
        config = (folder / "config.json").read_text().replace('"0": "0"', '"0": "zero"')
        replace(data)
        (folder / "config.json").write_text(config)
        await until(lambda: counted("opened") == 1)
        second = registry.lane("m")
        assert second.served.version != first.served.version
        assert registry.lane("m", second.served.version) is second
        with pytest.raises(Refusal, match=second.served.version):
            registry.lane("m", first.served.version)
        await registry.close()
        assert not registry.ready

    asyncio.run(run())


def test_files_of_other_things_are_not_watched(tmp_path: Path) -> None:
    """A log beside the folder of a model, which never rests, does not keep it from being opened."""
    (folder := tmp_path / "m").mkdir()
    (folder / "model.onnx").write_bytes(b"")
    place = Place.parse(str(folder))
    seen = beside(place)
    (tmp_path / "server.log").write_text("a line")
    assert beside(place) == seen
    (tmp_path / "config.json").write_text("{}")  # now the folder above is that of the model
    assert {Path(name).name for name, _, _ in beside(place) - seen} == {"server.log", "config.json"}


def test_a_file_that_changes_before_the_start_is_opened_again(tmp_path: Path) -> None:
    """The server opens models first, which may take long, and begins to watch them later."""
    shutil.copytree(MODELS / "digits-vit", folder := tmp_path / "m")
    options = ServingOptions(models=places([str(folder)]), reload=0.05)
    opened = Served(options.models[0], options)
    labels = folder / "config.json"
    labels.write_text(labels.read_text().replace('"0": "0"', '"0": "zero"'))

    async def run() -> None:
        registry = Registry(options, {"m": opened})
        await registry.start()
        await until(lambda: registry.lane("m").served is not opened)
        assert registry.lane("m").served.loaded.labels[0] == "zero"
        await registry.close()

    asyncio.run(run())


def test_a_file_that_changes_while_it_is_read_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(MODELS / "digits-vit", folder := tmp_path / "m")
    options = ServingOptions(models=places([str(folder)]))

    class Changing(LoadedModel):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            assert self.labels
            (folder / "config.json").write_text("{}")

    monkeypatch.setattr(served, "LoadedModel", Changing)
    assert Served(options.models[0], options).changed()


def test_a_body_may_end_after_the_model_was_opened_again(opened: dict[str, Served]) -> None:
    """The old model has no request left and is closed; the new one answers."""
    name = "reviews-rope"

    async def run() -> None:
        registry = Registry(serving(name), {name: opened[name]})
        await registry.start()
        routes = {route.path: route for route in Service(registry).routes()}
        old = registry.lane(name)

        async def receive() -> dict[str, object]:
            if registry.lane(name) is not old:  # the client waits for its answer
                await asyncio.sleep(600)
            registry._lanes[name] = Lane(name, old.served, registry.metrics)
            await old.close()
            return {"type": "http.request", "body": b'{"instances": ["A film."]}'}

        given = {"path_params": {"name": name}, NOTES: Notes("r1")}
        scope = {"type": "http", "method": "POST", "headers": [], **given}
        answer = await routes["/v1/models/{name}:explain"].endpoint(Request(scope, receive))
        assert answer.status_code == 200, answer.body
        await registry.close()

    asyncio.run(run())
