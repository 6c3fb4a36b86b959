"""What README and docs tell people to type: every command parses, and runs where it can.

Commands run in a folder that holds what they name: a little classifier of texts, the committed one
of digits, or a little decoder, each with its input beside it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from committed import MODELS, ROOT
from decoders import write_with_tokenizer
from pairs import write_pair
from PIL import Image
from specimens import write_text_model

from palrp_onnx.cli.main import program

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
#: What stands for something else, and what it stands for here.
PLACEHOLDERS = {
    "MODEL": "model.onnx",
    "model-int8.onnx": "model.onnx",
    "compare float int8": "compare last-month run",
    "--masks DIR": "--masks masks",
    "DIR": "inputs",
    "VOC/SegmentationClass": "masks",
    "RUN_inputs": "run",
    "VALUE=mask": "places=position",
    "VALUE": "x",
    "/encoder/Add_1_output_0": "x",
    "toxic,insult": "NEGATIVE,POSITIVE",
    "$SLURM_ARRAY_TASK_ID": "1",
    "…": "--input review.txt",
    "--prefix 24 --suffix 3": "--prefix 1 --suffix 1",
}
#: What does not run here, and why.
LEFT_OUT = {
    "pip install": "installs; CI runs the README's two",
    "pip uninstall": "changes the environment",
    "cuda": "needs a GPU",
    "--open": "opens a window; tests/cli/test_showing.py stands in for it",
    "speech.onnx": "takes sound; tests/inputs/test_sound.py reads some",
    "clip.onnx": "has two towers; tests/cli/test_several.py builds one",
    "layout.onnx": "has a text with boxes; tests/inputs/test_several.py reads them",
    "palrp-onnx export": "needs a model of PyTorch; tests/test_export.py runs it",
    "python models/conservation.py": "explains whole data sets, which it downloads",
    "python models/train_planted.py": "trains fourteen models",
    "evaluate planted": "takes inputs with known causes; tests/evaluate/test_planted.py has some",
    "python benchmarks/others.py": "reads files of other projects",
    "split ": "no command of this project",
    "palrp-onnx serve": "runs until it is ended; tests/serving/test_server.py starts it",
    "curl ": "needs a server; tests/serving asks the same",
    "serve run": "starts a cluster; tests/serving/test_ray.py does",
    "import tritonclient": "needs a server; tests/serving/test_v2.py speaks to one",
    "npm install": "installs what tests/web/test_pages_explain.py needs",
    "--web ": "needs that; tests/web/test_site.py writes pages",
    "python -m http.server": "serves until it is stopped",
    "import ray": "starts a cluster; tests/jobs/test_ray.py does",
}


def blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for language, block in found if language in languages]


def lines(page: Path) -> list[str]:
    return "".join(blocks(page, "console", "")).splitlines()


def left_out(text: str) -> bool:
    return any(part in text for part in LEFT_OUT)


def commands() -> list[tuple[str, str]]:
    """Page and command, comments and placeholders resolved."""
    found = []
    for page in PAGES:
        for line in lines(page):
            for part in re.split(r"&&|\|", line):
                if re.match(r"(\.venv/bin/)?palrp-onnx ", command := part.strip()):
                    for name, meaning in PLACEHOLDERS.items():
                        command = command.replace(name, meaning)
                    found.append((page.stem, shlex.join(shlex.split(command, comments=True)[1:])))
    return sorted(set(found))


COMMANDS = commands()
RUN = [each for each in COMMANDS if not left_out(f"palrp-onnx {each[1]}")]
EXAMPLES = [
    (page.stem, block) for page in PAGES for block in blocks(page, "python") if not left_out(block)
]


def test_every_line_is_a_command_or_is_left_out() -> None:
    for page in PAGES:
        for line in lines(page):
            assert "palrp-onnx " in line or left_out(line), (page.name, line)


@pytest.mark.quick
@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_parse(page: str, command: str) -> None:
    name, *arguments = shlex.split(command)
    found = program.get_command(click.Context(program), name)
    assert found is not None
    found.make_context(name, arguments)


def run(command: str) -> Result:
    return CliRunner().invoke(program, shlex.split(command), input="a good film")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder for a command, with the files that it names."""
    folder = tmp_path_factory.mktemp("documents")
    makers = {"texts": texts, "images": images, "decoder": decoder, "translation": translation}

    def made(command: str) -> Path:
        image = re.search(r"photo|cat\.jpg|images/|\b(pixels|segmentation)\b", command)
        kind = "images" if image else "decoder" if "decoder.onnx" in command else "texts"
        kind = "translation" if " marian " in command else kind
        if not (folder / kind).exists():
            (folder / kind).mkdir()
            makers[kind](folder / kind)
        return folder / kind

    return made


def decoder(folder: Path) -> None:
    write_with_tokenizer(folder)
    (folder / "answer.txt").write_text(" w4 w6")
    (folder / "messages.json").write_text('[{"role": "user", "content": "w5 w9"}]')
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


def translation(folder: Path) -> None:
    write_pair(folder / "marian")
    (folder / "source.txt").write_text("w5 w9 w13")
    (folder / "target.txt").write_text("w4 w6")


def texts(folder: Path) -> None:
    write_text_model(folder)
    (folder / "models").symlink_to(MODELS)
    (folder / "config.json").write_text('{"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}')
    shutil.copy(folder / "model.onnx", folder / "encoder.onnx")
    (folder / "inputs").mkdir()
    for name in ("review.txt", "a.txt", "b.txt", "inputs/1.txt", "inputs/2.txt"):
        (folder / name).write_text("a good good film" if "1" in name else "a good film")
    (folder / "texts").symlink_to("inputs")
    np.save(folder / "b.npy", np.array([1.0, 2.0]))
    np.savez(folder / "batch.npz", ids=np.array([[1, 2, 3], [1, 3, 3]]))
    rows = [{"id": str(k), "text": text} for k, text in enumerate(("a film", "a good film"))]
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [run(f"explain {folder}/model.onnx --input {folder}/{k}.txt") for k in ("inputs/1", "a")]
    right = [json.loads(each.stdout)["target"]["label"] for each in said]
    (folder / "right.json").write_text(json.dumps(dict(zip("12", right, strict=True))))
    for name in ("run", "last-month"):
        place = f"{folder}/model.onnx --input {folder}/reviews.jsonl -o {folder / name}"
        assert run(f"batch {place}").exit_code == 0
    shutil.copy(folder / "run" / "part-00000.jsonl", folder / "run.jsonl")


def images(folder: Path) -> None:
    shutil.copytree(MODELS / "digits-vit", folder, dirs_exist_ok=True)
    sample = Image.open(folder / "sample.png").convert("RGB")
    for name in ("inputs", "masks"):
        (folder / name).mkdir()
    for place in ("photo.jpg", "cat.jpg", "inputs/1.png", "inputs/2.png"):
        sample.save(folder / place)
    for name in ("1", "2"):
        sample.convert("L").point(lambda level: level > 100 and 255).save(
            folder / f"masks/{name}.png"
        )
    for name in ("images", "photos"):
        (folder / name).symlink_to("inputs")
    (folder / "true.json").write_text('{"1": 3, "2": 4}')


@pytest.mark.parametrize(("page", "command"), RUN)
def test_commands_run(
    page: str,
    command: str,
    places: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "place"
    shutil.copytree(places(command), place, symlinks=True)
    monkeypatch.chdir(place)
    result = run(command)
    assert result.exit_code == 0, result.output
    written = re.findall(r"(?:-o|--tensors|--curves|--journal|--triton) (\S{2,})", command)
    assert all(Path(name).exists() for name in written)


@pytest.mark.parametrize(("page", "example"), EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_examples_run(
    page: str, example: str, places: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places(example))
    exec(compile(example, f"{page}.md", "exec"), {})
