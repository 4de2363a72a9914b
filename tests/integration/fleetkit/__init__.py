"""What tests on real fleets share: the session's fleet, a client, graphs, and what single servers say of them.

`fixtures` holds the pytest fixtures. Another suite uses the same running fleet by importing them in its conftest.py,
with ``tests/integration`` on the path.
"""
