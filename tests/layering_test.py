"""Includes go one way between layers and rooms, no file is over 500 lines, and the top-level folders are the known ones."""

import pathlib
import re
import sys

# The layers, and what each may include besides itself; "proto" is the generated code.
ALLOWED = {
    "kernels": set(),
    "state": {"kernels"},
    "server": {"kernels", "proto", "state"},
    "client": {"proto"},
}
# Rooms of a folder, and what each may include besides itself; the folder's own files may include them all.
ROOMS = {
    "server": {
        "wire": set(),
        "engine": {"wire"},
        "metrics": {"engine", "wire"},
        "listen": set(),
        "service": {"engine", "listen", "metrics", "wire"},
        "prometheus": {"listen", "metrics", "service"},
        "checkpoint": set(),
    },
    "kernels/cuda": {
        "device": set(),
        "decode": {"device"},
        "prefill": {"device"},
        "ops": {"decode", "device", "prefill"},
        "backend": {"ops"},
    },
}
FOLDERS = {*ALLOWED, "docker", "proto", "tests"}
MADE_HERE = {"build", "bundle"}
CODE = {".h", ".cc", ".cu", ".cuh", ".py", ".proto"}
MAX_LINES = 500
ROOM_INCLUDE = {folder: re.compile(rf'^\s*#\s*include\s+"{folder}/([^/"]+)/') for folder in ROOMS}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<](kernels|state|server|client|tests|gdn|google/rpc)/')

root = pathlib.Path(sys.argv[1])
problems = []
for path in root.iterdir():
    if path.is_dir() and path.name[0] != "." and path.name not in FOLDERS | MADE_HERE:
        problems.append(f"{path.name}: an unknown top-level folder")
for path in (p for folder in FOLDERS for p in (root / folder).rglob("*") if p.suffix in CODE):
    name = path.relative_to(root)
    lines = path.read_text().splitlines()
    if len(lines) > MAX_LINES:
        problems.append(f"{name}: {len(lines)} lines, at most {MAX_LINES}")
    layer = name.parts[0]
    for number, match in enumerate(map(INCLUDE.match, lines), 1):
        target = match and {"gdn": "proto", "google/rpc": "proto"}.get(match[1], match[1])
        if target and layer in ALLOWED and target not in {layer, *ALLOWED[layer]}:
            problems.append(f"{name}:{number}: {layer} includes {target}")
    for folder, rooms in ROOMS.items():
        if not name.is_relative_to(folder) or name.parent == pathlib.Path(folder):
            continue
        room = name.relative_to(folder).parts[0]
        for number, match in enumerate(map(ROOM_INCLUDE[folder].match, lines), 1):
            if match and match[1] not in {room, *rooms[room]}:
                problems.append(f"{name}:{number}: {folder}/{room} includes {folder}/{match[1]}")

print("\n".join(sorted(problems)))
sys.exit(bool(problems))
