"""What Flower would send to every hospital, read from a bundle that is really built."""

from __future__ import annotations

import ast
import io
import shutil
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ccfexp", "strategies", "configs", "client", "server", "simulation")
# Of the client only what trains: what guards a hospital is its own installed copy.
CLIENT = {f"client/{name}.py" for name in ("__init__", "app", "memory", "update", "workbench")}
SHIPPED = {"client": {".py"}, "server": {".py"}, "strategies": {".py"}, "configs": {".py", ".yaml"}}
PLANTED = (
    "data/patients.json",
    "data/patients.yaml",
    "patients.json",
    "notes.md",
    "client/patients.json",
    "client/guard_of_this_hospital.py",
    "client/patients.yaml",
    "server/README.md",
    "configs/patients.json",
    "strategies/site.toml",
    "runs/a/metrics.json",
    "ccfexp/data/patients.json",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The bundle of a copy of this tree in which patient files were forgotten."""
    from flwr.cli.build import build_fab_from_disk  # Flower's command line takes a second to import

    tree = tmp_path_factory.mktemp("bundle") / "ccfexp-federation"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    for name in PLANTED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("{}")
    return zipfile.ZipFile(io.BytesIO(build_fab_from_disk(tree)))


def test_only_listed_source_is_shipped(bundle: zipfile.ZipFile) -> None:
    """Every file is source of a listed package, the project file or Flower's own list of contents."""
    names = [PurePosixPath(name) for name in bundle.namelist()]
    others = [
        str(name)
        for name in names
        if str(name) not in ("pyproject.toml", ".info/CONTENT") and name.suffix not in SHIPPED.get(name.parts[0], set())
    ]

    assert others == []
    assert {str(name) for name in names if name.parts[0] == "client"} == CLIENT


def test_planted_patients_stay(bundle: zipfile.ZipFile) -> None:
    """No forgotten file is in the bundle, wherever it lay."""
    assert sorted(set(PLANTED) & set(bundle.namelist())) == []


def test_all_source_is_shipped(bundle: zipfile.ZipFile) -> None:
    """What the apps import is in the bundle, and so are the configurations."""
    expected = {
        path.relative_to(ROOT).as_posix()
        for package, suffixes in SHIPPED.items()
        for path in (ROOT / package).rglob("*")
        if path.suffix in suffixes and package not in ("client", "server")
    } | CLIENT

    assert {"client/app.py", "configs/_door.py", "strategies/wire.py"} <= expected
    assert any(name.endswith(".yaml") for name in expected)
    assert expected <= set(bundle.namelist())


def test_whatever_the_apps_import_of_their_own_packages_is_shipped(bundle: zipfile.ZipFile) -> None:
    """Neither app needs a file that stays behind, and no file of the server is shipped that its app does not need."""
    own = {"client", "server", "strategies", "configs"}
    shipped = {name.removesuffix(".py").replace("/", ".") for name in bundle.namelist() if name.endswith(".py")}
    needed, found = {"client.app", "server.app"}, set[str]()
    while needed - found:
        module = min(needed - found)
        found.add(module)
        for node in ast.walk(ast.parse(bundle.read(f"{module.replace('.', '/')}.py"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in own:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                needed |= {name if name in shipped else node.module for name in names}
        needed = {name if name in shipped else f"{name}.__init__" for name in needed}

    assert needed <= shipped
    assert {name for name in shipped if name.startswith("server.")} - {"server.__init__"} <= needed


def test_project_file_is_shipped_with_the_components(bundle: zipfile.ZipFile) -> None:
    """The bundle starts the two apps of this tree."""
    app = tomllib.loads(bundle.read("pyproject.toml").decode())["tool"]["flwr"]["app"]

    assert app["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}
    assert app["config"] == {"config": "default", "hydra": "", "sites": 0}
