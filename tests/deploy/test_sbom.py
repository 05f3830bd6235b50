"""The parts of an image as CycloneDX; `docker` itself is asked by hand, as the tests have no engine."""

from datetime import UTC, datetime

import pytest

from deploy.sbom import Image, list_debian, list_python, make_document

IMAGE = Image(
    "resnet-serve:cpu", "sha256:ab", {"org.opencontainers.image.version": "0.1.0"}, ("debian", "12")
)


def test_debian_packages_are_named_as_vulnerability_databases_do() -> None:
    [component] = list_debian("libc6\t2.36-9+deb12u10\tamd64\n", ("debian", "12"))
    assert component["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
    assert (component["name"], component["version"]) == ("libc6", "2.36-9+deb12u10")


@pytest.mark.parametrize(
    ("line", "purl", "licence"),
    [
        ("typing_extensions\t4.15.0\tPSF-2.0", "pkg:pypi/typing-extensions@4.15.0", "PSF-2.0"),
        ("Pillow\t12.0\t", "pkg:pypi/pillow@12.0", None),
    ],
)
def test_python_packages_have_their_normal_names(line: str, purl: str, licence: str | None) -> None:
    [component] = list_python(f"{line}\n{line}\n")
    assert component["purl"] == purl
    assert component.get("licenses") == (None if licence is None else [{"expression": licence}])


def test_document_says_of_which_image_it_is() -> None:
    components = list_python("numpy\t2.4\tBSD-3-Clause\n")
    document = make_document(IMAGE, components, datetime(2026, 1, 2, tzinfo=UTC))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["timestamp"] == "2026-01-02T00:00:00Z"
    assert metadata["component"]["version"] == "0.1.0"
    assert document["components"] == components
