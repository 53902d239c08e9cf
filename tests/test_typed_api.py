"""What a type checker makes of a user's code: the package is typed, and its names are what they say."""

import subprocess
import sys

import pytest

USER = """
import torch
from torch import nn

import multimix as mm
from multimix.integrations import MultiMixClassifier

net = mm.adapt(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), encoder="0", head="1", objective=mm.CrossEntropy())
method: mm.Method = mm.MultiMix(tuples=10)
taught: mm.Method = mm.SelfDistilled(mm.Alternate((mm.MultiMix(), mm.Mixup())))
losses = method(net, torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), generator=torch.Generator())
reveal_type(losses)
reveal_type(losses.total)
reveal_type(net)
reveal_type(mm.adapt(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), head="1").to("cpu").train().eval())
torch.optim.SGD(net.parameters(), lr=0.1).step()
net.load_state_dict(net.state_dict())
with net.mixing_at(0, lambda x: x.flip(0)):
    reveal_type(net.classify(net.pool(net.embed(torch.zeros(4, 2)))))
network: mm.Network = net
reveal_type(mm.ops.mixed_cross_entropy(torch.zeros(4, 2), torch.zeros(4), torch.zeros(9, 4)))
reveal_type(MultiMixClassifier().fit([[0.0]], [0]))
mm.MultiMix(tuple=10)
mm.adapt("resnet18")
"""


@pytest.mark.slow
def test_a_users_code_is_checked(tmp_path, pytestconfig):
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    cache = pytestconfig.cache.mkdir("mypy")  # torch takes a minute the first time
    options = ["--python-executable", sys.executable, "--cache-dir", str(cache), "--config-file", ""]
    command = [sys.executable, "-m", "mypy", *options, "--ignore-missing-imports", "--follow-imports=silent", "user.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    for wanted in (
        'Revealed type is "multimix.protocols.Losses"',
        'Revealed type is "multimix.integrations.sklearn.MultiMixClassifier"',
        'Unexpected keyword argument "tuple" for "MultiMix"',
        'Argument 1 to "adapt" has incompatible type "str"; expected',
    ):
        assert wanted in said, said
    assert said.count('Revealed type is "multimix.models._network.StagedNetwork"') == 2, said
    assert said.count('Revealed type is "torch._tensor.Tensor"') == 3, said
    assert said.count("error:") == 2, said
