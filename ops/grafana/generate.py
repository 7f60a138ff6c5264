"""Writes the Grafana dashboard out of ops/grafana/panels.py: see --help."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ops.grafana.panels import DASHBOARD, Panel

FILE = Path(__file__).parent / "dashboards" / "gembackend.json"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in DASHBOARD:
        panels.append({"type": "row", "title": row.question, "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}})
        top += 1
        for stat in (True, False):
            width, height = (6, 4) if stat else (8, 8)
            left = 0
            shown = [panel for panel in row.panels if panel.stat is stat]
            for panel in shown:
                if left + width > COLUMNS:
                    left, top = 0, top + height
                panels.append(_panel(panel, {"x": left, "y": top, "w": width, "h": height}))
                left += width
            top += height if shown else 0
    return {
        "uid": "gembackend",
        "title": "gembackend",
        "tags": ["gembackend"],
        "schemaVersion": 39,
        "editable": False,
        "timezone": "utc",
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "graphTooltip": 1,
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "gridPos": place,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                "exemplar": "_bucket" in query,
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def text() -> str:
    """What belongs into the file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.grafana.generate", description="Writes the Grafana dashboard out of ops/grafana/panels.py."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is out of date")
    check = parser.parse_args().check
    outdated = not FILE.exists() or FILE.read_text() != text()
    if outdated and not check:
        FILE.write_text(text())
    if outdated:
        print(f"{FILE.name}: {'out of date' if check else 'written'}")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
