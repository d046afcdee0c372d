"""What the image's installation decides, without an image."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", REPOSITORY / "launch/container/install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_images_versions_win_over_the_projects_pins(install: ModuleType) -> None:
    pins = "# a comment\nTorch==2.13.0\nruamel.yaml==0.18\nxxhash==4.1.0\n\n"
    image = {"torch": "2.9.0a0+nv25.10", "ruamel-yaml": "0.17"}
    assert install.constraints(image, pins).splitlines() == [
        "ruamel-yaml==0.17",
        "torch==2.9.0a0+nv25.10",
        "xxhash==4.1.0",
    ]


@pytest.mark.parametrize(
    "pins", sorted((REPOSITORY / "constraints").glob("*.txt")), ids=lambda path: path.name
)
def test_every_pin_is_one_that_an_image_can_overrule(install: ModuleType, pins: Path) -> None:
    lines = [line for line in pins.read_text().splitlines() if line and not line.startswith("#")]
    image = {install.normalized(re.split("==", line)[0]): "0" for line in lines}
    assert install.constraints(image, pins.read_text()).count("==0\n") == len(lines)
    assert "\n".join(f"{name}==0" for name in sorted(image)) + "\n" == install.constraints(
        image, pins.read_text()
    )


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"torch": "2.9", "numpy": "1", "new": "1"}, []),
        ({"torch": "2.13", "numpy": "1"}, ["torch was replaced: 2.9 -> 2.13"]),
        ({"numpy": "2"}, ["numpy was replaced: 1 -> 2", "torch was replaced: 2.9 -> gone"]),
    ],
)
def test_every_package_that_changed_is_named(
    install: ModuleType, after: dict[str, str], said: list[str]
) -> None:
    assert install.replaced({"torch": "2.9", "numpy": "1"}, after) == said
