import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import multimix as mm
from multimix.lab.inference import _export as module
from multimix.lab.inference import export


def images_of(model, count):
    return torch.rand(count, *model.transform.shape, generator=torch.Generator().manual_seed(5))


def expected_of(model, images):
    with torch.no_grad():
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (model.facts.mean, model.facts.std))
        return model.network((images - mean) / std)


@pytest.mark.parametrize("count", [1, 4])
def test_onnx_runs_elsewhere(run, tmp_path, count):
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    made = export(run, tmp_path / "model.onnx")
    assert made.runtime.startswith("onnxruntime ")
    assert made.difference <= 1e-4 * max(made.largest, 1)
    model = mm.load(run, device="cpu")
    images = images_of(model, count)
    session = onnxruntime.InferenceSession(str(made.file), providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"images": images.numpy()})
    expected = expected_of(model, images)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), atol=1e-5)
    written = onnx.load(made.file)
    assert written.opset_import[0].version == 18
    about = json.loads({p.key: p.value for p in written.metadata_props}["multimix"])
    assert about["classes"] == ["blue", "green", "red"]
    assert about["normalisation"] == {"mean": list(model.facts.mean), "std": list(model.facts.std), "inside": True}
    assert about["preprocessing"]["centre_crop"] == [16, 16]


def test_pt2_is_a_program_with_its_description(run, tmp_path):
    made = export(run, tmp_path / "model.pt2")
    model, extra = mm.load(run, device="cpu"), {"multimix.json": ""}
    program = torch.export.load(made.file, extra_files=extra).module()
    for count in (1, 6):
        images = images_of(model, count)
        logits, probabilities = program(images)
        torch.testing.assert_close(logits, expected_of(model, images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(probabilities, logits.softmax(1))
    assert json.loads(extra["multimix.json"])["classes"] == list(model.classes)


def test_safetensors_is_loaded_by_name(run, tmp_path, colours):
    made = export(run, tmp_path / "model.safetensors")
    path = colours / "blue" / "3.png"
    again = mm.load(made.file, device="cpu")
    assert made.difference == 0
    assert torch.equal(again(path), mm.load(run, device="cpu")(path))
    with safe_open(str(made.file), "pt") as opened:
        written = opened.metadata()["multimix"]
    assert str(colours.parent) not in written, "where data lay is nobody's business"
    assert json.loads(written)["about"]["classes"] == ["blue", "green", "red"]


def test_a_file_that_computes_something_else_is_not_written(run, tmp_path, monkeypatch):
    plain = module._write_program

    def wrong(*given):
        name, program = plain(*given)
        return name, lambda images: tuple(part + 0.01 for part in program(images))

    monkeypatch.setattr(module, "_write_program", wrong)
    target = tmp_path / "model.pt2"
    target.write_bytes(b"before")
    with pytest.raises(ValueError, match=r"model.pt2 is not written: torch .* differ by 0\.01"):
        export(run, target)
    assert target.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.bad_input
def test_what_cannot_be_exported_is_said(run, tmp_path):
    with pytest.raises(ValueError, match=r"format must be one of onnx, pt2, safetensors, got 'pb'"):
        export(run, tmp_path / "model.pb")
    with pytest.raises(ValueError, match="source must be the folder of a run for safetensors"):
        export(mm.load(run, device="cpu"), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="out must be a file, got the folder"):
        export(run, tmp_path, format="pt2")
    assert list(Path(tmp_path).iterdir()) == []
