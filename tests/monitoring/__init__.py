"""Dashboards, alert rules and what shows that they work.

`make dashboards` writes the dashboards; `make monitoring` tries them and the rules on a real Prometheus.
"""
