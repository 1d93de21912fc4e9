"""Say in Markdown which plots differ, from what ``dvc plots diff --json`` prints."""

import json
import sys
from typing import Any


def table(described: dict[str, Any]) -> str:
    """Make a table of plots and whether their points are the same in both revisions."""
    rows = ["| plot | points before | points now | same |", "|---|---|---|---|"]
    for name, versions in sorted(described.get("data", {}).items()):
        points: dict[str, list[str]] = {}
        for version in versions:
            datapoints = version.get("datapoints", [])
            for point in datapoints:
                point.pop("rev", None)
            key = "now" if version.get("revisions", [""])[0] == "workspace" else "before"
            points.setdefault(key, []).extend(json.dumps(p, sort_keys=True) for p in datapoints)
        before, now = points.get("before", []), points.get("now", [])
        same = "yes" if before == now else "no"
        rows.append(f"| {name} | {len(before)} | {len(now)} | {same} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(json.load(sys.stdin)))
