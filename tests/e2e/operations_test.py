"""What the documentation names is what the server has, and the other way round."""

import re
import subprocess
from pathlib import Path

import pytest
import scrape

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docker/OPERATIONS.md").read_text()
README = (ROOT / "README.md").read_text()
ERRORS = (ROOT / "proto/gdn/v1/errors.proto").read_text()
METRIC = re.compile(r"\b(?:gdn|process)_\w+")


@pytest.fixture(scope="module")
def flags(request) -> dict[str, str]:
    """The defaults by name, as --help says them."""
    command = [request.config.getoption("server"), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r'^  --(\w+) .*\(default "(.*)"\)$', text, re.MULTILINE))


@pytest.fixture(scope="module")
def exported(served) -> set[str]:
    server = served("small", slots=4, metrics_listen="127.0.0.1:0")
    return set(scrape.families(scrape.text(server)))


def section(text: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def first_table(text: str) -> list[list[str]]:
    """Its rows without the head, cells without spaces and backquotes around them."""
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)
    return [[cell.strip().strip("`") for cell in row] for row in cells]


def reasons() -> dict[str, str]:
    """The code by reason, from the comments of the proto."""
    found, code = {}, ""
    for line in ERRORS.splitlines():
        if match := re.match(r"  // ([A-Z_]+)\. ", line):
            code = match[1]
        elif match := re.match(r"  ERROR_REASON_(\w+) = [1-9]", line):
            found[match[1]] = code
    return found


def test_flags_of_the_operations_page(flags):
    documented = {row[0]: row[1] for row in first_table(section(OPERATIONS, "Flags"))}
    assert documented == {f"--{name}": default for name, default in flags.items()}


def test_flags_of_the_readme(flags):
    rows = first_table(section(README, "Configuration"))
    documented = [flag for row in rows for flag in re.findall(r"--(\w+)", row[0])]
    assert sorted(documented) == sorted(flags)


def test_every_flag_mentioned_is_one(flags, request):
    server = Path(request.config.getoption("server")).resolve()
    ctl = (server.parents[1] / "client/cpp/gdn-ctl", server.parent / "gdn-ctl")
    known = set(flags) | {"config", "help"}
    for program in filter(Path.exists, ctl):
        usage = subprocess.run([program, "--help"], capture_output=True, text=True).stdout
        known |= set(re.findall(r"--(\w+)", usage))
    assert set(re.findall(r"--(\w+)", OPERATIONS)) - known == set()


def test_metrics_of_the_operations_page(exported):
    documented = [row[0] for row in first_table(section(OPERATIONS, "Metrics"))]
    assert sorted(documented) == sorted(exported)


@pytest.mark.parametrize("text", [OPERATIONS, README], ids=["operations", "readme"])
def test_every_metric_mentioned_is_one(text, exported):
    quoted = " ".join(re.findall(r"`[^`]+`", text))
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in METRIC.findall(quoted)}
    known = exported | {"gdn_client", "gdn_service", "gdn_v1"}  # other names of ours
    assert named - known == set()


def test_labels_of_the_operations_page(served):
    page = scrape.text(served("small", slots=4, metrics_listen="127.0.0.1:0"))
    labels: dict[str, set[str]] = {name: set() for name in scrape.families(page)}
    for name, series in scrape.samples(page):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if family in labels:
            labels[family] |= {label for label, _ in series if label != "le"}
    for name, documented, *_ in first_table(section(OPERATIONS, "Metrics")):
        assert set(filter(None, documented.split(", "))) == labels[name], name


def test_reasons_of_the_operations_page():
    documented = {row[0]: row[1] for row in first_table(section(OPERATIONS, "Error reasons"))}
    assert documented == reasons()


def test_reasons_that_the_server_counts(served):
    page = scrape.text(served("small", slots=4, metrics_listen="127.0.0.1:0"))
    counted = {
        dict(labels)["reason"]
        for name, labels in scrape.samples(page)
        if name == "gdn_errors_total"
    }
    assert counted == set(reasons())


def test_the_release_is_in_the_changelog():
    version = re.search(r"project\(gdn VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    entries = re.findall(r"^## (\d+\.\d+\.\d+)$", (ROOT / "proto/CHANGELOG.md").read_text(), re.M)
    assert entries[0] == version
