"""Every study by name; their records and pages lie in the folder ``studies`` of the repository."""

from multimix.recipes.names import named
from multimix.recipes.studies.anatomy import ANATOMY
from multimix.recipes.studies.comparison import COMPARISONS
from multimix.recipes.studies.further import FURTHER
from multimix.recipes.studies.seconds import SECONDS
from multimix.recipes.study import Study

STUDIES = {study().name: study for study in (*COMPARISONS, *FURTHER, *SECONDS, *ANATOMY)}
"""Every study by the name that ``multimix compare`` takes."""


def study_named(name: str) -> Study:
    """Return a study.

    Raises:
        ValueError: If the name is unknown.
    """
    return named(name, STUDIES, "recipe or study")
