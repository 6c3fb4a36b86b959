"""Export through Optimum: tiny seeded models in, a folder that can be explained out."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from palrp_onnx import export
from palrp_onnx.errors import CheckError, InputError, OutputError, ResourceError, UsageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (*SPECIAL, *(f"w{i}" for i in range(55)))
TRUNCATION = 17
TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
GPT2: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 24,
    "patch_size": 8,
}
#: name → (family, head, configuration, task its architecture implies, output).
NETWORKS: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    "bert": ("Bert", "ForSequenceClassification", TEXT, "text-classification", "logits"),
    "bert-mlm": ("Bert", "ForMaskedLM", TEXT, "fill-mask", "logits"),
    "bert-base": ("Bert", "Model", TEXT, "feature-extraction", "last_hidden_state"),
    "gpt2": ("GPT2", "LMHeadModel", GPT2, "text-generation", "logits"),
    "llama": (
        "Llama",
        "ForSequenceClassification",
        {**TEXT, "num_key_value_heads": 2},
        "text-classification",
        "logits",
    ),
    "vit": ("ViT", "ForImageClassification", VISION, "image-classification", "logits"),
}

Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders as ``save_pretrained`` leaves them, with a tokenizer or a preprocessor."""
    root = tmp_path_factory.mktemp("saved")

    def save(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            torch.manual_seed(0)
            family, head, arguments, _, _ = NETWORKS[name]
            config = getattr(transformers, f"{family}Config")(**arguments)
            getattr(transformers, family + head)(config).save_pretrained(folder)
            if arguments is VISION:
                size = {"height": 24, "width": 24}
                transformers.ViTImageProcessor(size=size).save_pretrained(folder)
            else:
                save_tokenizer(folder)
        return folder

    return save


def save_tokenizer(folder: Path) -> None:
    words = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(TRUNCATION)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Edit], None]:
    """Make the exporter write a file that an edit has spoilt."""
    from optimum.exporters import onnx as exporters

    original = exporters.main_export

    def arrange(edit: Edit) -> None:
        def main_export(source: str, output: Path, **options: Any) -> None:
            original(source, output=output, **options)
            model = onnx.load(output / "model.onnx")
            edit(model)
            onnx.save(model, output / "model.onnx")

        monkeypatch.setattr(exporters, "main_export", main_export)

    return arrange


def shift_bias(model: onnx.ModelProto, by: float) -> None:
    (bias,) = (i for i in model.graph.initializer if i.name == "classifier.bias")
    values = numpy_helper.to_array(bias)
    bias.CopyFrom(numpy_helper.from_array(values + values.dtype.type(by), bias.name))


@pytest.mark.parametrize("name", NETWORKS)
def test_export(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    *_, task, output = NETWORKS[name]
    report = export.export_model(saved(name), tmp_path / "out")
    assert report.task == task
    assert set(report.differences) == {output}
    assert report.differences[output] < 1e-5
    assert report.path == str(tmp_path / "out" / "model.onnx")
    assert report.files == sorted(p.name for p in (tmp_path / "out").iterdir())
    companion = "preprocessor_config.json" if name == "vit" else "tokenizer.json"
    assert {"config.json", "model.onnx", companion} <= set(report.files)
    graph = onnx.load(report.path)
    assert report.opset == next(o.version for o in graph.opset_import if o.domain == "")
    assert not any("past" in i.name for i in graph.graph.input)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


#: Small sizes of families, by the prefix of their classes.
BART: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "max_position_embeddings": 40,
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 48 for part in ("encoder", "decoder")},
}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
SOUND = {**VISION, "patch_size": 8, "max_length": 64, "num_mel_bins": 32}
TOWERS: dict[str, Any] = {
    "text_config": {**TEXT, "eos_token_id": 59, "bos_token_id": 58},
    "vision_config": VISION,
    "projection_dim": 16,
}
#: (family, head, configuration, the task that the architecture implies, outputs).
TASKS: list[tuple[str, str, dict[str, Any], str, set[str]]] = [
    ("Bert", "ForTokenClassification", TEXT, "token-classification", {"logits"}),
    ("Bert", "ForQuestionAnswering", TEXT, "question-answering", {"start_logits", "end_logits"}),
    ("Bert", "ForMultipleChoice", TEXT, "multiple-choice", {"logits"}),
    ("Bart", "ForSequenceClassification", BART, "text-classification", {"logits"}),
    (
        "Bart",
        "ForConditionalGeneration",
        BART,
        "text2text-generation",
        {"encoder_model/last_hidden_state", "decoder_model/logits"},
    ),
    (
        "Nystromformer",
        "ForSequenceClassification",
        {**TEXT, "num_landmarks": 4, "segment_means_seq_len": 16},
        "text-classification",
        {"logits"},
    ),
    ("ResNet", "ForImageClassification", STAGES, "image-classification", {"logits"}),
    (
        "Segformer",
        "ForSemanticSegmentation",
        {**STAGES, "num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16},
        "semantic-segmentation",
        {"logits"},
    ),
    ("AST", "ForAudioClassification", SOUND, "audio-classification", {"logits"}),
    (
        "CLIP",
        "Model",
        TOWERS,
        "zero-shot-image-classification",
        {"logits_per_image", "logits_per_text", "text_embeds", "image_embeds"},
    ),
]


@pytest.mark.parametrize(("family", "head", "sizes", "task", "outputs"), TASKS)
def test_every_task_is_compared_with_pytorch(
    tmp_path: Path, family: str, head: str, sizes: dict[str, Any], task: str, outputs: set[str]
) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    getattr(transformers, family + head)(config).save_pretrained(tmp_path / "in")
    report = export.export_model(tmp_path / "in", tmp_path / "out")
    assert report.task == task and set(report.differences) == outputs
    files = {name for name in report.files if name.endswith(".onnx")}
    assert files == {f"{name.partition('/')[0]}.onnx" for name in outputs if "/" in name} or (
        files == {"model.onnx"}
    )
    single = files == {"model.onnx"}
    assert report.path == str(tmp_path / "out" / "model.onnx" if single else tmp_path / "out")


def test_a_family_that_optimum_does_not_know(tmp_path: Path) -> None:
    config = {"model_type": "reformer", "architectures": ["ReformerForQuestionAnswering"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no models of type reformer"):
        export.export_model(tmp_path, tmp_path / "out")


def test_the_tokenizer_keeps_where_to_cut(saved: Callable[[str], Path], tmp_path: Path) -> None:
    export.export_model(saved("bert"), tmp_path / "out")
    tokenizer = json.loads((tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["truncation"]["max_length"] == TRUNCATION
    assert tokenizer["padding"] is None


def test_a_vocabulary_becomes_a_fast_tokenizer(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(saved("bert") / name, source)
    (source / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    report = export.export_model(source, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(Path(report.path).parent / "tokenizer.json"))
    assert tokenizer.encode("w3 w7").tokens == ["[CLS]", "w3", "w7", "[SEP]"]


def test_opset(saved: Callable[[str], Path], tmp_path: Path) -> None:
    report = export.export_model(saved("bert"), tmp_path / "out", opset=17)
    assert report.opset == 17


def test_an_export_replaces_the_one_before(saved: Callable[[str], Path], tmp_path: Path) -> None:
    first = export.export_model(saved("bert"), tmp_path / "out")
    before = Path(first.path).read_bytes()
    second = export.export_model(saved("bert-mlm"), tmp_path / "out")
    assert second.path == first.path
    assert Path(second.path).read_bytes() != before


def test_examples_have_padding() -> None:
    """LLaMA's classifier finds its token, and RoBERTa its positions, by the padding id."""
    ids = torch.tensor([[4, 0, 2, 9, 0, 1], [0, 3, 3, 0, 5, 6]])
    given = {"input_ids": ids, "attention_mask": torch.zeros_like(ids)}
    made = export._padded(given, 0)
    assert made["attention_mask"].tolist() == [[1] * 6, [1] * 3 + [0] * 3]
    assert made["input_ids"].tolist() == [[4, 1, 2, 9, 1, 1], [1, 3, 3, 0, 0, 0]]
    assert export._padded({"pixel_values": ids}, 0) == {"pixel_values": ids}


@pytest.mark.parametrize("by", [5e-4, float("nan")])
def test_a_wrong_file_is_refused(
    by: float, saved: Callable[[str], Path], altered: Callable[[Edit], None], tmp_path: Path
) -> None:
    """Seeded logits are about 0.01: the tolerance is a share of them, not of one."""
    altered(lambda model: shift_bias(model, by))
    with pytest.raises(CheckError, match="differs from PyTorch") as caught:
        export.export_model(saved("bert"), tmp_path / "out")
    assert caught.value.place == "output logits"
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_one_before(
    saved: Callable[[str], Path], altered: Callable[[Edit], None], tmp_path: Path
) -> None:
    report = export.export_model(saved("bert"), tmp_path / "out")
    before = Path(report.path).read_bytes()
    altered(lambda model: shift_bias(model, 1.0))
    with pytest.raises(CheckError):
        export.export_model(saved("bert"), tmp_path / "out")
    assert Path(report.path).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_output_pytorch_does_not_have_is_not_passed_over(
    saved: Callable[[str], Path], altered: Callable[[Edit], None], tmp_path: Path
) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.node.append(onnx.helper.make_node("Neg", ["logits"], ["other"]))
        model.graph.output.append(
            onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, ["b", 2])
        )

    altered(rename)
    with pytest.raises(CheckError, match="cannot be compared") as caught:
        export.export_model(saved("bert"), tmp_path / "out")
    assert caught.value.place == "output other"


def test_an_untrained_head_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights for classifier\.") as caught:
        export.export_model(saved("bert-base"), tmp_path / "out", task="text-classification")
    assert caught.value.place == str(saved("bert-base"))
    assert list(tmp_path.iterdir()) == []


def test_features_need_no_pooler(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """A masked language model has none; the hidden states do not depend on it."""
    report = export.export_model(saved("bert-mlm"), tmp_path / "out", task="feature-extraction")
    assert report.differences["last_hidden_state"] < 1e-5


def test_usage(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'translation'") as caught:
        export.export_model(saved("bert"), tmp_path / "out", task="translation")
    assert "text-classification" in caught.value.hint


def test_an_architecture_that_implies_no_task(saved: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(saved("bert"), source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["BertForLunch"]}))
    with pytest.raises(UsageError, match="BertForLunch"):
        export.export_model(source, tmp_path / "out")


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json") as caught:
        export.export_model(tmp_path, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.safetensors", b"xx"), ("model.safetensors", None), ("config.json", b"{")],
)
def test_a_broken_folder(
    name: str, content: bytes | None, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(saved("bert"), source)
    (source / name).unlink()
    if content is not None:
        (source / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        export.export_model(source, tmp_path / "out", task="text-classification")
    assert caught.value.place == str(source)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("task", [None, "fill-mask"])
def test_a_name_that_cannot_be_reached(
    task: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True)
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        export.export_model("nobody/nothing", tmp_path / "out", task=task)
    assert caught.value.place == "nobody/nothing"
    assert "config.json" in caught.value.hint


def test_code_that_a_model_brings_is_not_run(saved: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(saved("bert"), source)
    (source / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (source / "config.json").write_text(json.dumps(own))
    with pytest.raises(InputError):
        export.export_model(source, tmp_path / "out", task="fill-mask")
    assert not (tmp_path / "run").exists()


def test_the_output_is_a_file(saved: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError):
        export.export_model(saved("bert"), tmp_path / "out")


@pytest.mark.parametrize("opset", [11, 99])
def test_an_opset_the_exporter_cannot_write(
    opset: int, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"cannot be exported for text-classification: .*opset"):
        export.export_model(saved("bert"), tmp_path / "out", opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_keeps_off_stdout(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """The exporter dumps its graph from C++; only the end of a process flushes all of it."""
    program = "import sys; from palrp_onnx.cli.main import main; main()"
    arguments = ["export", str(saved("bert")), "-o", str(tmp_path / "out"), "--opset", "11"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    assert done.returncode == InputError.exit_code
    assert done.stdout == b""
    assert b"cannot be exported" in done.stderr
    assert b"Torch IR graph" not in done.stderr


def test_nothing_is_printed(
    saved: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = saved("vit")
    capfd.readouterr()
    export.export_model(source, tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_logging_is_left_as_it_was(saved: Callable[[str], Path], tmp_path: Path) -> None:
    verbosity = transformers.utils.logging.get_verbosity()
    logging.disable(logging.INFO)
    try:
        export.export_model(saved("bert"), tmp_path / "out")
        assert logging.root.manager.disable == logging.INFO
        assert transformers.utils.logging.get_verbosity() == verbosity
    finally:
        logging.disable(logging.NOTSET)


def test_without_the_extra(
    saved: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(ResourceError) as caught:
        export.export_model(saved("bert"), tmp_path / "out")
    assert caught.value.hint == 'pip install "palrp-onnx[export]"'


def test_seeded_logits_are_small(saved: Callable[[str], Path]) -> None:
    """What makes a shift of 5e-4 an error above, and would not for logits of one."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(saved("bert")).eval()
    with torch.no_grad():
        logits = network(input_ids=torch.arange(5, 12)[None]).logits.numpy()
    assert np.abs(logits).max() < 0.1
