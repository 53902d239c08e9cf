"""Python files of a user's own, named ``FILE.py`` or ``FILE.py:NAME`` where methods, recipes, studies and data are.

A file is run from its bytes, and so are the modules beside it that it imports; who keeps those bytes, as a run folder
does, keeps all that was run. Nothing here decides whether a file may be run: who calls :func:`find` or
:meth:`Code.resolve` has.
"""

import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_loader
from inspect import Parameter, isclass, isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from multimix.lab._paths import expanded

T = TypeVar("T")

Sources = Mapping[str, bytes]
"""Files by their path below the folder of the first of them, with slashes."""
Read = Callable[[str], bytes | None]
"""Returns the bytes of such a path, None where there is no file."""
Fits = Callable[[Any], bool]
"""Says whether an object is what is looked for in a file, or may make it."""


def split_reference(text: str) -> tuple[str, str | None] | None:
    """Return the file and the name (None: the only one) that ``FILE.py:NAME`` says; None of any other text."""
    found = re.fullmatch(r"([^:]+\.py)(?::(.*))?", text, re.DOTALL)
    return None if found is None else (found[1], found[2])


def digests(sources: Sources) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {name: sha256(source).hexdigest() for name, source in sources.items()}


class Program(MetaPathFinder, SourceLoader):  # type: ignore[misc]
    """A file of a folder and what it imports beside it: found, run, and their bytes kept."""

    def __init__(self, main: str, read: Read, place: Path) -> None:
        self.main, self.place, self._read = main, place, read
        self.sources: dict[str, bytes] = {}
        self.modules: dict[str, ModuleType] = {}
        self._files: dict[str, str] = {}

    def get(self, name: str) -> Any:
        """Return the object of a name, or raise ValueError."""
        there = vars(self.modules[self.main])
        if name not in there:
            raise ValueError(f"{self.place / self.main} has no {name!r}; it has {', '.join(self.own()) or 'nothing'}")
        return there[name]

    def own(self) -> dict[str, Any]:
        """Return the public objects that the file itself makes, by name."""
        module = self.modules[self.main]

        def made_here(value: Any) -> bool:
            if isclass(value) or isfunction(value):
                return value.__module__ == module.__name__
            return not isinstance(value, ModuleType) and type(value).__module__ != "typing"  # ClassVar and its like

        return {name: value for name, value in vars(module).items() if name[0] != "_" and made_here(value)}

    def only(self, what: str, fits: Fits) -> str:
        """Return the name of the only object that fits, or raise ValueError."""
        own, path = self.own(), self.place / self.main
        found = [name for name, value in own.items() if fits(value)]
        if not found:
            raise ValueError(f"{path} holds no {what}; it has {', '.join(own) or 'nothing'}")
        if len(found) > 1:
            which = f"say which, as in {path}:{found[0]}; it has {', '.join(found)}"
            raise ValueError(f"{path} holds more than one {what}: {which}")
        return found[0]

    def run(self) -> None:
        """Run the file; modules that were imported before are out of its way, and back afterwards."""
        aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_beside(name, self._read)}
        name = f"multimix_file_{Path(self.main).stem.replace('.', '_')}"  # never the name of somebody else's module
        module = module_from_spec(self._spec(name, self.main))
        sys.modules[name] = module
        sys.meta_path.insert(0, self)
        try:
            self.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{self.place / self.main} cannot be run: {_said(error, self.place)}") from error
        finally:
            sys.meta_path.remove(self)
            _BESIDE.update(other.__name__.partition(".")[0] for other in self.modules.values() if other is not module)
            sys.modules.update({known: old for known, old in aside.items() if known.partition(".")[0] not in _BESIDE})

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        top, dot, _ = fullname.partition(".")
        if top == "multimix" or (dot and top not in self._files):
            return None
        file = fullname.replace(".", "/")
        found = (name for name in (f"{file}/__init__.py", f"{file}.py") if self._read(name) is not None)
        return self._spec(fullname, name) if (name := next(found, "")) else None

    def _spec(self, fullname: str, file: str) -> ModuleSpec:
        self._files[fullname] = file
        spec = spec_from_loader(fullname, self, is_package=file.endswith("/__init__.py"))
        assert spec is not None  # it is None where the loader is
        return spec

    def get_filename(self, fullname: str) -> str:
        return str(self.place / self._files[fullname])

    def get_data(self, path: str) -> bytes:
        file = Path(path).relative_to(self.place).as_posix()
        if file not in self.sources:
            if (source := self._read(file)) is None:
                raise OSError(f"there is no file {path}")
            self.sources[file] = source
        return self.sources[file]

    def exec_module(self, module: ModuleType) -> None:
        self.modules[self._files[module.__name__]] = module
        super().exec_module(module)


@dataclass(frozen=True)
class Code:
    """Files that may be run."""

    sources: Sources
    place: Path
    """The folder that they are from."""

    def resolve(self, text: str) -> Any:
        """Return what ``FILE.py:NAME`` names, ValueError if there is none; the file is run, unless it has been."""
        file, name = split_reference(text) or (text, None)
        return _program(file, self.sources.get, self.place).get(str(name))


class Reference(str):
    """``FILE.py:NAME`` together with the files, as a field of a configuration holds it; a plain text may not be run."""

    code: Code

    def __new__(cls, text: str, code: Code) -> "Reference":
        """Join a text and the files that it speaks of."""
        self = super().__new__(cls, text)
        self.code = code
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.code

    def resolve(self) -> Any:
        """Return what the text names, as :meth:`Code.resolve`."""
        return self.code.resolve(self)


def find(text: str, what: str, fits: Fits) -> Reference:
    """Return what ``FILE.py:NAME`` refers to, or ``FILE.py`` with the only object there that fits, and run the file."""
    file, name = split_reference(text) or (text, None)
    path = expanded(file)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")

    def read(name: str) -> bytes | None:
        beside = path.parent / name
        return beside.read_bytes() if beside.is_file() else None

    program = _program(path.name, read, path.parent)
    name = program.only(what, fits) if name is None else name
    program.get(name)
    return Reference(f"{program.main}:{name}", Code(program.sources, program.place))


def find_made(text: str, what: str, kind: type[T]) -> tuple[T, Reference]:
    """Return the ``kind`` that a name in a file is, or that the function of the name returns, and the reference."""
    reference = find(text, what, makes(kind))
    made = called(reference)
    if not isinstance(made, kind):
        got = type(made).__name__ if made is not None else "None"
        raise ValueError(f"{reference} must be a {kind.__name__}, or a function that returns one; got {got}")
    return made, reference


def called(reference: Reference) -> Any:
    """Return what a function returns, and of anything else itself."""
    value = reference.resolve()
    if not isfunction(value):
        return value
    try:
        return value()
    except Exception as error:
        raise ValueError(f"{reference}: {_said(error, reference.code.place)}") from error


def makes(kind: type) -> Fits:
    """Return what says whether an object is a ``kind``, or a function without arguments that may return one."""

    def fits(value: Any) -> bool:
        if not isfunction(value):
            return isinstance(value, kind)
        said = value.__annotations__.get("return", kind)
        name = said.__name__ if isclass(said) else str(said).rpartition(".")[2]
        return takes_nothing(value) and name == kind.__name__

    return fits


def takes_nothing(function: Callable[..., Any]) -> bool:
    """Return whether a function can be called without arguments."""
    variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return all(p.default is not Parameter.empty or p.kind in variadic for p in signature(function).parameters.values())


_PROGRAMS: list[Program] = []
"""Files that this process ran: one is not run twice as long as its bytes are the same, and a class is known by it."""


def program_of(cls: type) -> tuple[Program, str] | None:
    """Return the program that made a class, and the class as ``FILE.py:NAME``; None of anybody else's class."""
    for program in reversed(_PROGRAMS):
        for file, module in program.modules.items():
            if cls.__module__ == module.__name__ and vars(module).get(cls.__name__) is cls:
                return program, f"{file}:{cls.__name__}"
    return None


def _program(main: str, read: Read, place: Path) -> Program:
    """Return the program of a file, run unless it has been: ``read`` returns its bytes and those beside it."""
    if read(main) is None:
        raise ValueError(f"there is no file {place / main}")
    for program in _PROGRAMS:
        same = all(read(name) == source for name, source in program.sources.items())
        if same and (program.main, program.place) == (main, place):
            return program
    program = Program(main, read, place)
    program.run()
    _PROGRAMS.append(program)
    return program


_BESIDE: set[str] = set()
"""Modules that lay beside files that were run: the next file's of the same name are others."""


def _is_beside(name: str, read: Read) -> bool:
    """Return whether a module that was imported earlier would be taken for one that lies beside a file."""
    top = name.partition(".")[0]
    if top in _BESIDE:
        return True
    if top == "multimix" or top in sys.stdlib_module_names or (read(f"{top}.py") or read(f"{top}/__init__.py")) is None:
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and "site-packages" not in Path(file).parts


def _said(error: BaseException, place: Path) -> str:
    """Return an error in one line, with the line of the user's file that it is from."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno} of {Path(error.filename or '').name})"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == place]
    where = f" (line {own[-1].lineno} of {Path(own[-1].filename).name})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ") + where
