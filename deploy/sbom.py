"""Write what is in an image as a CycloneDX 1.6 document: Debian's packages and Python's, as installed.

    python3 deploy/sbom.py resnet-serve:cpu > sbom.json

Asks the image itself, over `docker run` without a network, so that it also tells what a base image brought.
Needs nothing but Python and docker.
"""

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

LIST_DEBIAN = ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"]
LIST_PYTHON = [
    "python",
    "-c",
    "from importlib.metadata import distributions\n"
    "for d in distributions():\n"
    "    m = d.metadata\n"
    "    print(m['Name'], d.version, m.get('License-Expression', ''), sep='\\t')",
]
READ_RELEASE = ["sh", "-c", '. /etc/os-release; echo "$ID" "$VERSION_ID"']


@dataclass(frozen=True, slots=True)
class Image:
    """`labels` are OCI's; `distribution` is such as ("debian", "12")."""

    name: str
    id: str
    labels: dict[str, str]
    distribution: tuple[str, str]


def ask(image: str, command: list[str]) -> str:
    """What a command prints in the image."""
    confined = ["docker", "run", "--rm", "--network", "none", "--read-only", "--entrypoint", command[0]]
    done = subprocess.run([*confined, image, *command[1:]], capture_output=True, text=True, check=True)
    return done.stdout


def inspect_image(name: str) -> Image:
    """Its id and labels."""
    asked = ["docker", "image", "inspect", name]
    [found] = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    system, _, release = ask(name, READ_RELEASE).strip().partition(" ")
    return Image(name, found["Id"], found["Config"]["Labels"] or {}, (system, release))


def list_debian(lines: str, distribution: tuple[str, str]) -> list[dict[str, object]]:
    """One component for each line of LIST_DEBIAN."""
    system, release = distribution
    components: list[dict[str, object]] = []
    for line in sorted(lines.splitlines()):
        name, version, architecture = line.split("\t")
        escaped = quote(version, safe="")
        purl = f"pkg:deb/{system}/{name}@{escaped}?arch={architecture}&distro={system}-{release}"
        components.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    return components


def list_python(lines: str) -> list[dict[str, object]]:
    """One component for each line of LIST_PYTHON."""
    components: list[dict[str, object]] = []
    for line in sorted(set(lines.splitlines()), key=str.lower):
        name, version, licence = line.split("\t")
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version, safe='')}"
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
        }
        if licence:
            component["licenses"] = [{"expression": licence}]
        components.append(component)
    return components


def make_document(image: Image, components: list[dict[str, object]], made: datetime) -> dict[str, object]:
    """The whole document."""
    title = "org.opencontainers.image."
    properties = [{"name": name, "value": value} for name, value in sorted(image.labels.items())]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, image.id + made.isoformat())}",
        "version": 1,
        "metadata": {
            "timestamp": made.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "component": {
                "type": "container",
                "bom-ref": image.id,
                "name": image.name,
                "version": image.labels.get(f"{title}version", image.id),
                "properties": properties,
            },
        },
        "components": components,
    }


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    image = inspect_image(sys.argv[1])
    debian = list_debian(ask(image.name, LIST_DEBIAN), image.distribution)
    python = list_python(ask(image.name, LIST_PYTHON))
    json.dump(make_document(image, debian + python, datetime.now(UTC)), sys.stdout, indent=1)
    print()
    print(f"{len(debian)} packages of Debian, {len(python)} of Python", file=sys.stderr)


if __name__ == "__main__":
    main()
