"""What ``import multimix as mm`` offers: every method, for completion and type checkers alike."""

import ast
from pathlib import Path

import multimix as mm
from multimix import methods


def test_every_method_and_combinator_is_there():
    classes = {
        cls.__name__ for cls in (*methods.METHODS, methods.Alternate, methods.Chain, methods.Ramp, methods.Until)
    }
    assert classes | {"SelfDistilled", "MultiMixLoss", "adapt", "ops", "METHODS"} <= set(mm.__all__) <= set(dir(mm))
    assert all(getattr(mm, name) is getattr(methods, name) for name in classes)


def test_all_names_load_and_type_checkers_see_the_same_ones():
    tree = ast.parse(Path(mm.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [line for line in block.body if isinstance(line, ast.ImportFrom)]
    assert all(alias.name in {alias.asname, "*"} for line in imports for alias in line.names)  # or they are private
    named = {alias.name for line in imports for alias in line.names} - {"*"}
    assert named | set(methods.__all__) == set(mm.__all__)
    assert all(getattr(mm, name) is not None for name in mm.__all__)


def test_everything_can_be_imported_at_once():
    exec("from multimix import *", found := {})  # noqa: S102
    assert set(mm.__all__) <= set(found)
