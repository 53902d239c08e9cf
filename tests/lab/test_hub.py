import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import multimix as mm
from multimix.lab import hub
from multimix.lab.hub import load_pretrained, push_to_hub, save_pretrained
from multimix.lab.train import load_network, train
from photos import several_labels
from toy import HandWritten
from train.tiny import events, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny(method=mm.MultiMix(tuples=20), seed=4, epochs=1, root="/home/somebody/data")
    return train(config, tmp_path_factory.mktemp("hub") / "run", quiet=True).path


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("nobody asked for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


CONFIG = {"name": "preact_resnet18", "num_classes": 3, "width": 2}
FILES = {"config.json", "model.safetensors", "README.md"}


def network():
    return mm.models.build(**CONFIG)


class Recorder:
    """Stands in for the hub's API and keeps what it is told."""

    def __init__(self):
        self.calls = []

    def create_repo(self, repo_id, **options):
        self.calls += [repo_id, options]

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls += [repo_id, {file.name for file in Path(folder_path).iterdir()}]
        return "abc"


def card_of(folder):
    """The metadata, the metrics in it, and the text of a model card."""
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    return front, [m for index in front.get("model-index", ()) for r in index["results"] for m in r["metrics"]], body


def test_run_has_equal_logits_after_a_round_trip(run, tmp_path):
    folder = save_pretrained(run, tmp_path / "out")
    assert {file.name for file in folder.iterdir()} == FILES
    images = torch.randn(5, 1, 8, 8)
    ours, facts = load_pretrained(folder)
    theirs, splits = load_network(run, device="cpu")
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert (facts.classes, facts.mean) == (splits.classes, splits.mean)


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5", "wide_resnet16_8"])
def test_network_has_equal_logits_after_a_round_trip(name, tmp_path):
    config = {"name": name, "num_classes": 3} | ({"width": 1} if name.startswith("wide") else {})
    made = mm.models.build(**config)
    loaded, facts = load_pretrained(save_pretrained(made, tmp_path / "out", config=config))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.eval()(images), made.eval()(images))
    assert facts is None


@pytest.mark.parametrize(
    "objective",
    [mm.CrossEntropy((1.0, 2.0, 0.5)), mm.BinaryCrossEntropy(label_smoothing=0.1), mm.SquaredError()],
    ids=str,
)
def test_objective_comes_back(tmp_path, objective):
    made = network()
    made.objective = objective
    assert load_pretrained(save_pretrained(made, tmp_path / "out", config=CONFIG))[0].objective == objective


def test_model_of_ones_own_is_loaded_into_another(tmp_path):
    model, other = (mm.adapt(module, encoder="body", head="out") for module in (HandWritten(), HandWritten()))
    folder = save_pretrained(model, tmp_path / "out")
    loaded, _ = load_pretrained(folder, network=other)
    images = torch.randn(5, 3, 12, 12)
    assert torch.equal(loaded(images), model(images))
    with pytest.raises(ValueError, match="network must be given"):
        load_pretrained(folder)


def test_card_holds_the_runs_own_record(run, tmp_path):
    folder = save_pretrained(run, tmp_path / "out")
    front, metrics, body = card_of(folder)
    [event] = events(run, "test")
    assert {"type": "accuracy", "value": event["accuracy"]} in metrics
    [line] = [line for line in body.splitlines() if line.startswith("| accuracy")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:7] == [f"{100 * event['accuracy']:.2f} %", "4", "1", str(event["examples"]), "1", "cpu"]
    assert cells[8] == str(event["commit"] or "not recorded")
    assert {"multimix", "mixup"} <= set(front["tags"])
    written = (folder / "config.json").read_text() + body
    assert "somebody" not in written
    assert str(Path.cwd()) not in written


def test_card_of_several_labels_is_in_percent_and_says_so(tmp_path):
    several_labels(tmp_path)
    run = train(tiny(data=f"npz:{tmp_path / 'set.npz'}", train_size=None, epochs=1), tmp_path / "run", quiet=True).path
    _, metrics, body = card_of(save_pretrained(run, tmp_path / "out"))
    [event] = events(run, "test")
    for name in ("mean_average_precision", "macro_f1", "exact_match"):
        assert f"| {name} | {100 * event[name]:.2f} % |" in body
        assert {"type": name, "value": event[name]} in metrics
    assert f"| bce | {event['bce']:.4g} |" in body
    assert "| labels, of which an image may have any number | 3 |" in body
    assert "classes" not in body.partition("## Use")[0]


def test_card_says_so_where_nothing_was_measured(tmp_path):
    front, _, body = card_of(save_pretrained(network(), tmp_path / "out", config=CONFIG))
    assert "model-index" not in front
    assert "No record of a measurement came with these weights" in body


def test_record_of_other_weights_is_not_quoted(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    weights = load_file(copied / "model.safetensors")
    weights["head.bias"] = weights["head.bias"] + 1
    save_file(weights, copied / "model.safetensors")
    assert "| accuracy" not in card_of(save_pretrained(copied, tmp_path / "out"))[-1]


def test_record_given_goes_into_the_card_as_it_is(tmp_path):
    record = [
        {"metric": "accuracy", "value": 0.5, "seed": 1, "n": 3, "device": "cpu", "commit": "abc", "data": "a|b\n# c"},
        {"nll": 1.25, "seed": 1},
    ]
    front, metrics, body = card_of(save_pretrained(network(), tmp_path / "out", config=CONFIG, record=record))
    assert [metric["value"] for metric in metrics] == [0.5, 1.25]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "a|b\n# c"
    assert "| accuracy | 50.00 % | 1 | 3 | not recorded | not recorded | cpu | not recorded | abc |" in body


def test_push_sends_the_folder_once(run):
    api = Recorder()
    answer = push_to_hub(run, "me/digits", private=True, api=api)
    assert answer == "abc"
    assert api.calls == ["me/digits", {"private": True, "exist_ok": True}, "me/digits", FILES]


def test_loads_from_the_hub_what_it_needs(run, tmp_path, monkeypatch):
    folder = save_pretrained(run, tmp_path / "out")
    blobs, snapshot = tmp_path / "models/blobs", tmp_path / "models/snapshots/abc"
    snapshot.mkdir(parents=True)
    folder.rename(blobs)
    for name in FILES:  # as the hub's cache does it
        (snapshot / name).symlink_to(blobs / name)
    asked = []

    class Host:
        @staticmethod
        def snapshot_download(repo_id, *, revision, allow_patterns):
            asked.append((repo_id, revision, allow_patterns))
            return str(snapshot)

    monkeypatch.setattr(hub, "require", lambda *_, **__: Host)
    loaded, _ = load_pretrained("me/digits", revision="v1")
    assert asked == [("me/digits", "v1", ["config.json", "model.safetensors", "README.md"])]
    assert loaded(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_home_is_where_it_always_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert save_pretrained(network(), "~/out", config=CONFIG) == tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert load_pretrained("~/out")[1] is None


NO = "there is no folder {!r}"
HINT = "; source must be a folder that is there or owner/name on the hub"
PATHS = dict.fromkeys(
    ("./x", "../x", "~/x", "/x", "x", "a/b/c", "runs\\x", "a..b/c", "", "me /x", "me/x@v1"), NO + HINT
)
PATHS |= {"file": NO + ", but a file" + HINT, Path("me/x"): NO + HINT}
PATHS["runs/typo"] = NO + ": runs is a folder here, so the hub was not asked; revision='main' asks it"
PATHS["me/x"] = NO + ", and the hub gave nothing of this name: 404 for me/x"


@pytest.mark.bad_input
@pytest.mark.parametrize(("source", "said"), PATHS.items(), ids=map(repr, PATHS))
def test_says_that_there_is_no_folder(tmp_path, monkeypatch, source, said):
    asked = []

    class Host:
        @staticmethod
        def snapshot_download(repo_id, **_):
            asked.append(repo_id)
            raise OSError(f"\n404 for {repo_id}\nmore")

    monkeypatch.setattr(hub, "require", lambda *_, **__: Host)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError) as raised:
        load_pretrained(source)
    assert str(raised.value) == said.format(str(source))
    assert asked == (["me/x"] if source == "me/x" else [])
    with pytest.raises(FileNotFoundError, match="and the hub gave nothing of this name: 404 for runs/typo"):
        load_pretrained("runs/typo", revision="main")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (TypeError, {"source": 3}, "source must be a folder or owner/name on the hub, got 3"),
        (TypeError, {"source": "me/x", "revision": 1}, "revision must be a text or None, got 1"),
        (ValueError, {"source": "runs", "revision": "v1"}, "revision must be left out for 'runs', which is a folder"),
    ],
)
def test_refuses_what_is_no_source(tmp_path, monkeypatch, kind, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(kind, match=said):
        load_pretrained(**given)


@pytest.mark.bad_input
def test_refuses_pickles_and_paths_out_of_the_folder(run, tmp_path):
    folder = save_pretrained(run, tmp_path / "out")
    weights = folder / "model.safetensors"
    outside = weights.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(FileNotFoundError, match=r"there is no model\.safetensors in"):
        load_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"holds pytorch_model\.bin and no model\.safetensors: pickles could run"):
        load_pretrained(folder)
    weights.symlink_to(outside)
    with pytest.raises(ValueError, match=r"model\.safetensors must lie in .*, but leads to"):
        load_pretrained(folder)
    weights.unlink()
    weights.write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match="damaged"):
        load_pretrained(folder)


class Absolute(mm.SquaredError):
    """An objective of the user's own, whose code is not written down."""


@pytest.mark.bad_input
@pytest.mark.parametrize("kind", ["Mixup", "mine.py:Absolute"])
def test_own_objective_is_not_written_and_only_objectives_are_read(tmp_path, kind):
    made = network()
    made.objective = Absolute()
    with pytest.warns(UserWarning, match=r"objective Absolute\(\) is your own: set it again"):
        folder = save_pretrained(made, tmp_path / "out", config=CONFIG)
    assert mm.ops.objective_of(load_pretrained(folder)[0]) == mm.CrossEntropy()
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | {"objective": {"type": kind}}))
    with pytest.raises(ValueError, match=r"config\.json: objective must be one of multimix\.ops, got"):
        load_pretrained(folder)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "name", ["timm:hf-hub:evil/model", "timm:local-dir:/etc", "../x", "timm:../x", "torchvision:a/b", 3]
)
def test_refuses_names_that_would_fetch_or_open(run, tmp_path, name):
    folder = save_pretrained(run, tmp_path / "out")
    found = json.loads((folder / "config.json").read_text())
    found["config"]["model"] = name
    (folder / "config.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="the model's name must be a plain one"):
        load_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"multimix": "1", "network": {"name": name, "num_classes": 3}}))
    with pytest.raises(ValueError, match="the model's name must be a plain one"):
        load_pretrained(folder)


@pytest.mark.bad_input
def test_bad_arguments_are_named(run, tmp_path):
    for wrong in ("../me/x", "me", "me/../x", "a..b/c", "/etc/passwd", "a/b/c"):
        with pytest.raises(ValueError, match="repo_id must be owner/name, got"):
            push_to_hub(run, wrong, api=Recorder())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    refused = {
        "config builds another network than source": {"config": CONFIG | {"width": 4}},
        r"config must hold arguments of multimix\.models\.build": {"config": CONFIG | {"depth": 4}},
        "config must be a mapping with the name": {"config": {"num_classes": 3}},
        "config must not ask for pretrained": {"config": CONFIG | {"pretrained": True}},
        "record must hold a metric such as accuracy, got only seed": {"record": {"seed": 1}},
        "record must hold finite numbers, got accuracy = nan": {"record": {"accuracy": float("nan")}},
        "record must be a mapping or a list of them, got float": {"record": 0.9},
        "source must be a network or the folder of a run, got int": {"source": 3},
        "config must be left out: a run has its own": {"source": run},
        "folder .*full exists and is not empty": {"folder": tmp_path / "full"},
    }
    for said, given in refused.items():
        with pytest.raises((TypeError, ValueError, FileExistsError), match=said):
            save_pretrained(**{"source": network(), "folder": tmp_path / "out", "config": CONFIG, **given})
    assert not (tmp_path / "out").exists()
