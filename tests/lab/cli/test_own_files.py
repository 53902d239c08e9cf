"""Methods, recipes and data from files of a user's own: trained, kept, resumed, and not run without being told to."""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from cli.command import TINY
from cli.own import FILES, METHOD, RECIPE, TOLD, lay
from multimix.lab.cli.__main__ import main
from multimix.lab.hub import load_pretrained, save_pretrained
from multimix.lab.train import load_network, load_trained, resume
from train.tiny import files, steady, weights

TRAIN = "train own/my_recipe.py --method own/my_mix.py --data own/my_data.py:load --quiet --checkpoint-steps 1"
KEPT = {name: sha256(text.encode()).hexdigest() for name, text in FILES.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with a method, data and a recipe of the user's; leave it as it is."""
    folder = tmp_path_factory.mktemp("trained")
    lay(folder / "own")
    line = TRAIN.replace("own/", f"{folder}/own/")
    assert main(f"{line} --out {folder} --name run".split()) == 0
    return folder / "run"


@pytest.fixture
def run(multimix, trained) -> Path:
    """The same run, whose original files are gone."""
    shutil.copytree(trained, "run")
    return Path("run")


def written(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_a_run_says_and_keeps_what_it_was_made_of(trained):
    config = written(trained)["config"]
    assert config["method"] == {"type": "my_mix.py:MyMix", "share": 0.3}
    assert (config["label"], config["data"], config["recipe"]) == ("my-mix", "my_data.py:load", "my_recipe.py:small")
    assert written(trained)["code"] == KEPT
    assert {path.name: path.read_text() for path in (trained / "code").iterdir()} == FILES
    page = (trained / "report.html").read_text()
    assert all(name in page for name in ("my_mix.py:MyMix", "my_data.py:load"))
    assert all(f"{name} ({digest[:8]})" in page for name, digest in KEPT.items())


def test_fields_of_a_method_and_of_one_inside_another_can_be_overridden(multimix):
    lay(Path("own"))
    line = "train own/my_recipe.py --quiet --out ."
    multimix.succeeds(f"{line} --name plain --method own/my_mix.py:MyMix --method.share 0.1")
    assert written(Path("plain"))["config"]["method"] == {"type": "my_mix.py:MyMix", "share": 0.1}
    fields = "--method.method.share 0.2 --method.gamma 0.25"
    multimix.succeeds(f"{line} --name taught --method distilled-own/my_mix.py {fields}")
    taught = written(Path("taught"))["config"]
    found = taught["label"], taught["method"]["gamma"], taught["method"]["method"]["share"]
    assert found == ("distilled-my-mix", 0.25, 0.2)


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been_whatever_became_of_its_files(multimix, trained):
    lay(Path("own"))
    line = [sys.executable, "-m", "multimix", *TRAIN.split(), "--out", ".", "--name", "part"]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums round by them
    killed = subprocess.run(line, env={**os.environ, **threads, "DIES_AT": "3"}, check=False, capture_output=True)
    assert killed.returncode == -9
    assert not Path("part/model.safetensors").exists()
    lay(Path("own"), helper="STRENGTH = 0.9\n", my_mix=TOLD, my_data=TOLD, my_recipe=TOLD)
    multimix.succeeds("train --quiet --resume part --trust-code")
    assert weights(Path("part")) == weights(trained)
    assert steady(Path("part")) == steady(trained)
    assert not Path("was-run").exists()


@pytest.mark.slow
def test_workers_run_a_method_and_one_that_is_killed_is_resumed(multimix, trained, monkeypatch):
    lay(Path("own"))
    monkeypatch.setattr("os.cpu_count", lambda: 2 * torch.get_num_threads())  # so that each has as many as here
    monkeypatch.setenv("DIES_AT", "4")  # of four steps: the next worker has one left, and pictures to draw
    line = "compare own/my_recipe.py --methods erm own/my_mix.py --data own/my_data.py --seeds 1 --out out --quiet"
    multimix.succeeds(f"{line} --checkpoint-steps 1 --jobs 2")
    assert weights(Path("out/my-mix-0")) == weights(trained)
    assert written(Path("out/my-mix-0"))["code"] == KEPT
    assert set(written(Path("out/erm-0"))["code"]) == {"my_recipe.py", "my_data.py"}
    lay(Path("own"), my_mix=METHOD + "\n# another\n")
    said = multimix.complains(f"{line} --checkpoint-steps 1")
    assert said.startswith("run folder out/my-mix-0 holds a run of another my_mix.py (sha256 ")


def test_nothing_that_a_run_folder_holds_is_run_unless_it_is_trusted(multimix, run):
    for name in FILES:
        (run / "code" / name).write_text(TOLD)
    digest, config = sha256(TOLD.encode()).hexdigest(), run / "config.json"
    config.write_text(config.read_text().replace(KEPT["my_mix.py"], digest))
    before = files(run)
    for line in ("train --resume run", "evaluate run"):
        said = multimix.complains(line)
        assert said.startswith("run folder run holds code of its own, which this would run: my_data.py (sha256 ")
        assert all(words in said for words in (f"my_mix.py (sha256 {digest})", "--trust-code"))
    for call in (resume, load_network):
        with pytest.raises(ValueError, match="trust_code=True"):
            call(run)
    load_trained(run)
    save_pretrained(run, Path("hub"))
    load_pretrained(Path("hub"))
    assert files(run) == before
    assert not Path("was-run").exists()


def test_the_same_file_named_again_is_trusted_and_no_other(multimix, run):
    lay(Path("own"))
    for name in ("own/my_mix.py", "own/my_mix.py:MyMix"):
        assert "accuracy" in multimix.succeeds(f"train --quiet --resume run --method {name}")
    for wrong, said in {
        "mixup": "--resume goes on with the run's own method; --method may name its file, got mixup",
        "own/my_mix.py:Other": "run run was not made of own/my_mix.py:Other",
        "own/other.py": "run run was not made of own/other.py",
        "nowhere/my_mix.py": "there is no file nowhere/my_mix.py",
    }.items():
        assert multimix.complains(f"train --resume run --method {wrong}") == said
    Path("own/helper.py").write_text(TOLD)  # which my_mix.py imports
    said = "helper.py is not the file that run run keeps; --trust-code goes on with that"
    assert multimix.complains("train --resume run --method own/my_mix.py") == said
    assert not Path("was-run").exists()


def test_what_needs_the_network_alone_needs_no_trust(multimix, run, trained):
    loaded = load_trained(run), load_network(trained, trust_code=True), load_pretrained(save_pretrained(run, "hub"))
    images = torch.rand(3, 1, 8, 8)
    given, wanted, hub = (network.eval()(images) for network, _ in loaded)
    assert torch.equal(given, wanted)
    assert torch.equal(hub, wanted)
    multimix.succeeds(f"train digits {TINY} --quiet --out . --init run --name next")
    assert "code" not in written(Path("next"))
    assert "(50 images)" in multimix.succeeds("evaluate run --suites accuracy calibration --trust-code")


@pytest.mark.parametrize("name", FILES)
def test_copies_that_have_changed_are_refused(multimix, run, name):
    Path(run, "code", name).write_text(TOLD)
    said = multimix.complains("train --resume run --trust-code")
    assert said.startswith(f"run/code/{name} has changed since the run began: its sha256 is ")
    Path(run, "code", name).unlink()
    assert multimix.complains("evaluate run --trust-code") == f"run/code/{name} is missing, which the run needs"
    assert not Path("was-run").exists()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train nowhere.py", "there is no file nowhere.py"),
        ("train own/helper.py", "own/helper.py holds no recipe; it has STRENGTH"),
        ("train own/my_data.py", "my_data.py:load must be a TrainConfig, or a function that returns one; got dict"),
        ("train own/broken.py", "own/broken.py cannot be run: invalid syntax (line 1 of broken.py)"),
        ("train own/raising.py", "own/raising.py cannot be run: KeyError: 'x' (line 3 of raising.py)"),
        ("train own/leaving.py", "own/leaving.py cannot be run: SystemExit: 3 (line 2 of leaving.py)"),
        ("train own/late.py", "late.py:recipe: ZeroDivisionError: division by zero (line 3 of late.py)"),
        ("train own/two.py", "holds more than one recipe: say which, as in own/two.py:small; it has small, large"),
        ("train digits --method own/my_data.py", "own/my_data.py holds no method (a dataclass with a name and"),
        ("train digits --method own/plain.py:Plain", "plain.py:Plain must be a method: a dataclass"),
        ("train digits --method own/slashed.py", "slashed.py:Mix: name must be letters, digits and . _ + -"),
        ("train digits --method own/needy.py", "needy.py:Mix: every field must have a default: "),
        ("train digits --method own/my_mix.py --method.shore 1", "Unrecognized options: --method.shore, 1"),
        ("train digits --data own/helper.py", "own/helper.py holds no function without arguments; it has STRENGTH"),
        ("train digits --data own/listing.py", "listing.py:load must return a mapping with the arrays train_images,"),
        ("train digits --data own/short.py", "short.py:load has no train_labels, only: train_images"),
        ("train digits --trust-code", "Unrecognized options: --trust-code"),
        ("compare own/my_recipe.py", "small must be a Study, or a function that returns one; got TrainConfig"),
        ("compare digits --methods erm own/my_mix.py own/my_mix.py:MyMix", "methods are told apart by their labels"),
        ("compare digits --methods own/my_mix.py --data other/my_mix.py", "must not both be called my_mix.py"),
    ],
)  # fmt: skip
def test_wrong_files_are_one_line_and_nothing_is_written(multimix, line, said):
    lay(
        Path("own"),
        broken="def\n",
        raising="\n\n{}['x']\n",
        leaving="import sys\nsys.exit(3)\n",
        late="def recipe():\n\n    return 1 / 0\n",
        two=RECIPE + RECIPE[RECIPE.index("def small") :].replace("small", "large"),
        plain="class Plain:\n    name = 'plain'\n    def __call__(self): ...\n",
        slashed=METHOD.replace("class MyMix", "class Mix").replace("my-mix", "a/b"),
        needy=METHOD.replace("class MyMix", "class Mix").replace("share: float = STRENGTH", "share: float"),
        listing="def load():\n    return [1]\n",
        short="def load():\n    return {'train_images': [[[1]]]}\n",
    )
    lay(Path("other"), my_mix="def load(): ...\n")
    before = files(multimix.folder)
    assert said in multimix.complains(line)
    assert files(multimix.folder) == before
