"""The wheel holds the package, its data and its licence, and nothing else."""

import sys
import zipfile
from pathlib import Path

names = zipfile.ZipFile(sys.argv[1]).namelist()
wanted = {str(path) for path in Path("micropref").rglob("*.py")} | {"micropref/py.typed"}
wanted |= {str(path) for path in Path("micropref").rglob("*.json")}
problems = [f"missing: {name}" for name in sorted(wanted - set(names))]
problems += [f"unexpected: {name}" for name in names if not name.startswith("micropref-") and name not in wanted]
if not any(name.endswith("LICENSE") for name in names):
    problems.append("missing: LICENSE")
print("\n".join(problems) or f"{Path(sys.argv[1]).name}: {len(names)} files, as expected")
sys.exit(bool(problems))
