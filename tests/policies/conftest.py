"""What the tests of policies share: Calico's vectors, where they are present, and texts as found objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.load import Found, Loaded, assembled, found_in

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """The vectors of a name, recorded from Calico's own code; they are not part of this repository."""

    def read(name: str) -> Any:
        path = SHARED / "calico" / "vectors" / f"{name}.json"
        if not path.exists():
            pytest.skip(f"{path} is not here: Calico's vectors are kept outside the repository")
        return json.loads(path.read_text())

    return read


@pytest.fixture(scope="session")
def crd() -> Callable[[str], Any]:
    """The OpenAPI schema of a Calico kind, by the plural name of its CRD."""
    yaml = pytest.importorskip("yaml")

    def read(plural: str) -> Any:
        path = SHARED / "calico-crds" / f"projectcalico.org_{plural}.yaml"
        if not path.exists():
            pytest.skip(f"{path} is not here: Calico's CRDs are kept outside the repository")
        document = yaml.safe_load(path.read_text())
        return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    return read


@pytest.fixture(scope="session")
def find() -> Callable[[str], Found]:
    """The objects of a text, read as if from the file `p.yaml`."""
    return lambda text: found_in([("p.yaml", text)])


@pytest.fixture(scope="session")
def load() -> Callable[[str], Loaded]:
    """The inventory of a text, read as if from the file `p.yaml`."""
    return lambda text: assembled(found_in([("p.yaml", text)]))
