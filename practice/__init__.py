"""A practice season: a generated tournament, served over Numerai's own protocol.

For a first run without account or network, and for tests. ``python -m practice`` starts it; the pipeline's source
``practice`` is the same code as ``numerai``, pointed at its address.

- ``rounds.py``: which rounds there are, when each is open, and which era it belongs to
- ``names.py``: long feature names, as Numerai gives them
- ``model.py``: the random model behind the data: what the features, targets and example predictions of an era are
- ``hidden_groups.py``: groups of rows that t-SNE finds, on request (``--group-lean``)
- ``season.py``: the files, written in Numerai's layout and kept
- ``protocol.py``: the GraphQL side; ``account_calls.py``: the part of it that needs an account
- ``accounts.py``: accounts, their models, and what they hand in
- ``scores.py``: what that comes to; ``standings.py``: the page that shows it
- ``faults.py``: misbehaviour on demand, for tests
- ``server.py``: the HTTP side
"""
