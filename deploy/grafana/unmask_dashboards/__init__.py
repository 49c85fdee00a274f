"""Unmask's Grafana dashboards as code: `make dashboards` writes them to helm/unmask/dashboards, where they are checked in."""
