import subprocess
import sys

import pytest

HOSTS = (
    "lightning",
    "pytorch_lightning",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "sklearn",
    "timm",
    "torchvision",
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def test_package_imports_no_host_and_not_even_torch():
    code = f"""
import sys, multimix, multimix.integrations as i
assert "MultiMixTrainer" in dir(i) and "hub" in dir(i)
heavy = sorted(set({(*HOSTS, "torch")!r}) & set(sys.modules))
assert not heavy, heavy
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_a_host_is_imported_by_its_own_module_only():
    done = run(
        "import sys; from multimix.integrations import MixCollate; "
        "print(sorted({'lightning', 'transformers', 'accelerate', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.bad_input
def test_missing_hosts_are_named_with_what_installs_them():
    code = """
import sys
from multimix.integrations._host import require_host
for names, extra in ((("lightning.pytorch", "pytorch_lightning"), "lightning"), (("transformers",), "transformers"),
                     (("huggingface_hub",), "hub"), (("timm",), None)):
    for name in names:
        sys.modules[name.partition(".")[0]] = None
    try:
        require_host(*names, extra=extra)
    except ImportError as error:
        print(error)
try:
    import multimix.integrations.transformers
except ImportError as error:
    print(error)
"""
    done = run(code)
    assert done.stdout.splitlines() == [
        "lightning or pytorch_lightning is not installed, which this integration is for:"
        " pip install multimix[lightning]",
        "transformers is not installed, which this integration is for: pip install multimix[transformers]",
        "huggingface_hub is not installed, which this integration is for: pip install multimix[hub]",
        "timm is not installed, which this integration is for: pip install multimix",
        "transformers is not installed, which this integration is for: pip install multimix[transformers]",
    ], done.stderr


def test_falls_back_to_the_older_name_of_lightning(tmp_path):
    (tmp_path / "pytorch_lightning.py").write_text("")
    done = run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules['lightning'] = None; "
        "from multimix.integrations._host import require_host; "
        "print(require_host('lightning.pytorch', 'pytorch_lightning', extra='lightning').__name__)"
    )
    assert done.stdout.strip() == "pytorch_lightning", done.stderr


def test_what_a_host_lacks_itself_is_not_hidden(tmp_path, monkeypatch):
    from multimix.integrations._host import require_host

    (tmp_path / "broken_host.py").write_text("import a_module_that_is_nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        require_host("broken_host", extra="hub")


@pytest.mark.bad_input
def test_unknown_names_are_refused():
    import multimix.integrations as integrations

    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        integrations.Nothing  # noqa: B018
