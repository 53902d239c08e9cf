import subprocess
import sys

import pytest

import multimix
from multimix._optional import require

HOSTS = "lightning pytorch_lightning transformers accelerate huggingface_hub sklearn timm torchvision"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_package_imports_no_host_and_not_even_torch():
    code = f"""
import sys, multimix, multimix.integrations as i
assert "MultiMixTrainer" in dir(i) and "timm" in dir(i)
heavy = sorted(set({[*HOSTS.split(), "torch"]!r}) & set(sys.modules))
assert not heavy, heavy
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_a_host_is_imported_by_its_own_module_only():
    pytest.importorskip("torchvision", reason="needs a host to import")
    others = {"lightning", "transformers", "accelerate", "huggingface_hub"}
    done = run(f"import sys; from multimix.integrations import MixCollate; print({others!r} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.bad_input
def test_the_loss_needs_the_core_alone_and_missing_hosts_are_named_with_what_installs_them():
    done = run(f"""
import sys, torch, torch.utils.checkpoint, jaxtyping, annotated_types
before = {{name.partition(".")[0] for name in sys.modules}}
import multimix as mm
mm.MultiMixLoss()(torch.randn(3, 4), torch.arange(3))
now = {{name.partition(".")[0] for name in sys.modules}}
print(sorted(now - before - {{"multimix"}} - set(sys.stdlib_module_names)))
from importlib import import_module
sys.modules |= dict.fromkeys({HOSTS.split()!r})  # None: as if it were not there
for module in ("lightning", "transformers", "timm", "torchvision", "sklearn"):
    try:
        import_module("multimix.integrations." + module)
    except ImportError as error:
        print(error)
""")
    needed = {
        "lightning": "lightning or pytorch_lightning, which is not installed: pip install lightning",
        **{name: f"{name}, which is not installed: pip install {name}" for name in ("transformers", "timm")},
        "torchvision": "torchvision, which is not installed: pip install torchvision",
        "sklearn": "sklearn, which is not installed: pip install scikit-learn",
    }
    said = ["[]", *(f"multimix.integrations.{module} needs {what}" for module, what in needed.items())]
    assert done.stdout.splitlines() == said, done.stderr


def test_falls_back_to_an_older_name_and_hides_nothing_that_a_host_lacks_itself(tmp_path, monkeypatch):
    (tmp_path / "older_host.py").write_text("")
    (tmp_path / "broken_host.py").write_text("import a_module_that_is_nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert require("newer_host.part", "older_host", by="it").__name__ == "older_host"
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        require("broken_host", by="it")


@pytest.mark.bad_input
@pytest.mark.parametrize("module", [multimix, multimix.integrations])
def test_unknown_names_are_refused(module):
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        module.Nothing  # noqa: B018
