"""Draws what run.py found: latency against load, a picture for each plane.

plot.py FOLDER      reads FOLDER/sweep.json, writes FOLDER/latency-PLANE.png
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def draw(points: list[dict], plane: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name in dict.fromkeys(point["name"] for point in points):
        curve = [point for point in points if point["name"] == name]
        rps = [point["rps"] for point in curve]
        (line,) = axes.plot(rps, [point["p50"] for point in curve], "o-", label=f"{name}, p50")
        p99 = [point["p99"] for point in curve]
        axes.plot(rps, p99, "o--", color=line.get_color(), label=f"{name}, p99")
        for point in curve:
            at = (point["rps"], point["p50"])
            axes.annotate(
                point["concurrency"], at, (4, -10), textcoords="offset points", fontsize=7
            )
    axes.set(xscale="log", yscale="log", xlabel="calls a second", ylabel="ms")
    axes.set_title(f"Decode of one row over {plane}; the numbers are calls in flight")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    folder = Path(sys.argv[1])
    points = json.loads((folder / "sweep.json").read_text())
    for plane in dict.fromkeys(point["plane"] for point in points):
        path = folder / f"latency-{plane}.png"
        draw([point for point in points if point["plane"] == plane], plane, path)
        print(path)


if __name__ == "__main__":
    main()
