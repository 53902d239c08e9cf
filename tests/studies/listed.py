"""Every study of the files in ``studies/``, by its name."""

import comparison
import further
import seconds
import sweeps
from multimix.lab._code import makes
from multimix.lab.recipes import Study

_MADE = (value for module in (comparison, further, seconds, sweeps) for value in vars(module).values())
STUDIES = {function().name: function for function in _MADE if makes(Study)(function)}


def study_named(name: str) -> Study:
    return STUDIES[name]()
