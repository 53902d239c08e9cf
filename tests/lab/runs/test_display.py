"""What is shown away from a terminal of passes that take long."""

import pytest

from multimix.lab.runs import display
from multimix.lab.runs.display import Display


@pytest.mark.parametrize(("least", "quiet", "lines"), [(-1.0, False, 1), (-1.0, True, 0), (60.0, False, 0)])
def test_a_pass_that_takes_long_has_a_line_and_what_is_said_is_never_quiet(least, quiet, lines, capfd, monkeypatch):
    monkeypatch.setattr(display, "_LONG_PASS", least)
    with Display("run", quiet=quiet) as shown:
        assert list(shown.track("test", [1, 2])) == [1, 2]
        shown.say("run: accuracy [0.5]")
    *passes, said = capfd.readouterr().out.splitlines()
    assert said == "run: accuracy [0.5]"
    assert [line.startswith("run: test  ") for line in passes] == [True] * lines
