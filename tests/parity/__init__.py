"""Parity: is what Wholepod decides what kube-scheduler would decide?

The judge is the real thing: `oracle/` is a small Go program around kube-scheduler's own plugins.
Random pods and clusters (`generate.py`) go through it and through Wholepod (`decide.py`), and every
difference counts (`judge.py`). `python -m tests.parity` runs many, `test_parity.py` a few thousand.
"""
