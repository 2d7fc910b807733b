"""What the code base promises of itself: light to import, layered, honest about its names."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import exemplars

SOURCE = Path(exemplars.__file__).parent
HEAVY = ("torch", "numpy", "numba", "transformers", "scipy", "sklearn", "pyarrow", "pydantic")
ORDER = (
    "errors", "characters", "geometry", "calibration", "nearest", "clustering", "members",
    "contexts", "notebook", "readout", "dictionary", "corpora", "tokenization", "models",
    "activations", "store", "hub", "legacy", "streaming", "building", "lens", "intervene",
    "generation", "tracing", "diagnosis", "labels", "figures", "analyses", "export", "report",
    "explorer", "cli",
)  # fmt: skip
"""A module imports only from modules to the left of it."""
METHOD = ORDER[: ORDER.index("dictionary") + 1]
"""The method: arrays in, arrays out; no model, no file, no clock."""
FILES = sorted(SOURCE.rglob("*.py"))
LONG = 60


def module_of(path: Path) -> str:
    """The module or package directly under exemplars that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def at_runtime(tree: ast.AST):
    """All nodes but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from at_runtime(node)


def imported(path: Path):
    """(module, name) of every import at run time; the name is None for `import module`."""
    for node in at_runtime(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def ours(path: Path):
    """Modules of the package that a file imports."""
    for module, name in imported(path):
        if module == "exemplars" and name is not None:
            yield name
        elif module.startswith("exemplars."):
            yield module.split(".")[1]


def loaded_by(statement: str) -> set[str]:
    """Which of HEAVY a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*[m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(found.stdout.split())


def functions():
    """(file, function, lines of code: neither docstring, nor comment, nor blank)."""
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.FunctionDef):
                continue
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            doc = range(first.lineno, first.end_lineno + 1) if documented else ()
            code = [
                n
                for n in range(node.lineno, node.end_lineno + 1)
                if n not in doc and lines[n - 1].strip() and lines[n - 1].strip()[0] != "#"
            ]
            yield path, node.name, len(code)


def test_importing_the_package_loads_none_of_the_libraries():
    assert loaded_by("import exemplars") == set()


def test_the_check_of_imports_sees_a_library_that_is_loaded():
    assert loaded_by("import exemplars, pyarrow") >= {"pyarrow"}
    assert "numpy" in loaded_by("import exemplars; exemplars.calibrate")


def test_the_command_loads_none_of_the_libraries_before_it_works():
    assert loaded_by("import exemplars.cli") == set()
    assert loaded_by("import exemplars.errors") == set()
    assert "torch" not in loaded_by("import exemplars.report")


def test_every_module_has_its_place_in_the_order():
    there = {module_of(path) for path in FILES} - {"__init__", "__main__"}
    assert there <= set(ORDER)
    assert set(ORDER) - there <= {"hub", "labels", "export", "explorer"}


def test_modules_import_only_from_modules_above_them():
    upward = [
        f"{module_of(path)} imports {name}"
        for path in FILES
        if module_of(path) in ORDER
        for name in ours(path)
        if name in ORDER
        and name != module_of(path)
        and ORDER.index(name) > ORDER.index(module_of(path))
    ]
    assert upward == []


def test_the_method_imports_nothing_of_the_world():
    found = {
        f"{module_of(path)} imports {name}"
        for path in FILES
        if module_of(path) in METHOD
        for name in [*ours(path), *(module.split(".")[0] for module, _ in imported(path))]
        if (name in ORDER and name not in METHOD) or name in ("transformers", "datasets", "time")
    }
    assert found == set()


def test_the_method_does_without_torch():
    """It takes tensors, and has a search for them; neither needs torch for arrays."""
    names = ", ".join(f"exemplars.{name}" for name in METHOD)
    assert "torch" not in loaded_by(f"import {names}")


def test_no_module_uses_the_underscore_name_of_another():
    found = []
    for path in FILES:
        tree = tree_of(path)
        modules = set()
        for module, name in imported(path):
            if module.startswith("exemplars") and name is not None:
                if name.startswith("_") and not name.startswith("__"):
                    inside = module.split(".")[1:2] == [module_of(path)]
                    found += [] if inside else [f"{path.name}: {module}.{name}"]
                modules.add(name)
        found += [
            f"{path.name}: {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules & set(ORDER)
            and node.attr.startswith("_")
        ]
    assert found == []


def test_the_public_names_are_sorted_and_all_there():
    assert exemplars.__all__ == sorted(exemplars.__all__)
    for name in exemplars.__all__:
        assert getattr(exemplars, name).__name__ == name
    assert set(dir(exemplars)) == {*exemplars.__all__, "__version__"}


def test_type_checkers_see_the_names_that_programs_see():
    seen = {
        alias.asname: node.module.removeprefix("exemplars.")
        for node in ast.walk(tree_of(SOURCE / "__init__.py"))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("exemplars.")
        for alias in node.names
    }
    assert sorted(seen) == exemplars.__all__
    for name, module in seen.items():
        assert getattr(importlib.import_module(f"exemplars.{module}"), name) is getattr(
            exemplars, name
        )


def test_public_names_are_still_theirs_after_every_module_was_imported():
    before = {name: getattr(exemplars, name) for name in exemplars.__all__}
    found = [m.name for m in pkgutil.walk_packages([str(SOURCE)], "exemplars.")]
    assert len(found) >= len(ORDER) - 1
    for module in found:
        importlib.import_module(module)
    assert {name: getattr(exemplars, name) for name in exemplars.__all__} == before


def test_no_module_has_the_name_of_a_public_name():
    assert {module_of(path) for path in FILES} & set(exemplars.__all__) == set()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = exemplars.nothing


def test_only_the_command_prints():
    found = [
        module_of(path)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and (ast.unparse(node.func) in ("print", "sys.stdout.write", "typer.echo"))
    ]
    assert set(found) <= {"cli"}


def test_only_the_reader_of_published_pickles_knows_pickle():
    found = {
        path.name
        for path in FILES
        for module, _ in imported(path)
        if module.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
    }
    assert found <= {"legacy.py"}
    assert "allow_pickle=True" not in "".join(path.read_text() for path in FILES)


def test_nothing_is_swallowed():
    found = []
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            idle = all(isinstance(part, ast.Pass) for part in node.body)
            if node.type is None or (broad and idle):
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_nine_in_ten_functions_have_fewer_than_sixty_lines():
    sizes = sorted(((n, f"{path.name}:{name}") for path, name, n in functions()), reverse=True)
    assert len(sizes) > 300
    long = [found for found in sizes if found[0] >= LONG]
    assert len(long) < len(sizes) / 10, long


def test_the_version_is_written_once():
    import re

    project = SOURCE.parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("pyproject.toml is not here; run this from a checkout")
    text = project.read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1]
    assert exemplars.__version__ == version
    assert [p.name for p in FILES if f'"{version}"' in p.read_text(encoding="utf-8")] == []
