"""Files of a user's own: run from their bytes, with their neighbours, and told apart by them."""

import copy
import sys

import pytest

from multimix.lab._code import Code, Reference, find, find_made, program_of, split_reference
from multimix.lab.data import own_data

MAIN = """
from dataclasses import dataclass

import near.inner
from beside import VALUE


@dataclass
class Thing:
    value: int = VALUE


def two() -> int:
    return 2 * near.inner.VALUE


def text() -> str:
    return __file__


def needs(one) -> int: ...
"""
FILES = {"main.py": MAIN, "beside.py": "VALUE = 3\n", "near/__init__.py": "", "near/inner.py": "VALUE = 5\n"}


def lay(folder, **changes):
    for name, text in {**FILES, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_names_a_file():
    assert split_reference("a.py") == ("a.py", None)
    assert split_reference("some/where/a.py:b") == ("some/where/a.py", "b")
    assert split_reference("a.py:") == ("a.py", "")
    assert not any(split_reference(text) for text in ("digits", "npz:a.py", "folder:pictures.py", "a.pyc"))


def test_a_file_is_known_with_all_that_it_imports_beside_it_and_no_more(tmp_path):
    lay(tmp_path, **{"other.py": "1 / 0"})
    path = list(sys.path)
    value, reference = find_made(str(tmp_path / "main.py:two"), "number", int)
    assert (value, reference) == (10, "main.py:two")
    assert dict(reference.code.sources) == {name: text.encode() for name, text in FILES.items()}
    assert sys.path == path
    assert find_made(str(tmp_path / "main.py"), "text", str)[0] == str(tmp_path / "main.py")  # the only one that fits
    assert not (tmp_path / "__pycache__").exists()


def test_a_file_is_run_once_and_one_with_other_neighbours_is_another(tmp_path):
    named = [lay(tmp_path / "one"), tmp_path / "one", lay(tmp_path / "two", **{"beside.py": "VALUE = 7\n"})]
    one, same, two = (find(f"{folder}/main.py:Thing", "thing", callable).resolve() for folder in named)
    assert one is same
    assert (one().value, two().value) == (3, 7)
    for cls, value in ((one, b"VALUE = 3\n"), (two, b"VALUE = 7\n")):
        program, name = program_of(cls)
        assert (name, program.sources["beside.py"]) == ("main.py:Thing", value)
    assert program_of(dict) is None


def test_modules_of_the_same_name_that_were_imported_before_are_neither_taken_nor_lost(tmp_path, monkeypatch):
    lay(tmp_path / "elsewhere", **{"beside.py": "VALUE = 11\n"})
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    import beside

    thing = find(f"{lay(tmp_path / 'here')}/main.py:Thing", "thing", callable).resolve()
    assert (thing().value, beside.VALUE) == (3, 11)


def test_a_copy_of_a_reference_brings_its_files_along(tmp_path):
    code = Code({"a.py": b"x = 1\n"}, tmp_path)
    found = copy.deepcopy(Reference("a.py:x", code))
    assert (found, found.code, found.resolve()) == ("a.py:x", code, 1)


def test_what_was_edited_is_run_anew(tmp_path):
    for value in (1, 2):
        (tmp_path / "a.py").write_text(f"def x() -> int:\n    return {value}\n")
        assert find_made(str(tmp_path / "a.py"), "number", int)[0] == value


def test_what_is_named_as_data_must_be_a_function_without_arguments(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("SIZE = 3\ndef load(root): ...\n")
    for name in ("SIZE", "load"):
        with pytest.raises(ValueError, match=rf"mine\.py:{name} must be a function without arguments that returns"):
            own_data(f"{file}:{name}")
