"""The pure part: state, queue, decisions. No I/O, no clock but the one it is given.

Everything here can be driven by a test in virtual time; `scheduler.app` connects it to a cluster.
"""
