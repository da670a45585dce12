"""The simulated tournament (simulator): generated rounds, served over Numerai's protocol.

For a first run without account or network, and for tests. ``python -m practice`` starts it; the pipeline's source
``practice`` is the same code as ``numerai`` with the simulator's address.

Statuses, errors and score names are those of published answers, which ``tests/recorded`` holds.

- ``rounds.py``: rounds, their eras and opening hours; ``payouts.py``: their scores and multipliers
- ``names.py``: long feature names, as in Numerai's data
- ``model.py``: sizes, and the random model that generates the rows of an era: ``features.py`` their features,
  ``effects.py`` the law between features and targets
- ``hidden_groups.py``: groups of rows that t-SNE finds, on request (``--group-lean``)
- ``season.py``: the files of the rounds, in Numerai's layout
- ``protocol.py``: the GraphQL schema; ``account_resolvers.py``: resolvers that need an account; ``errors.py``
- ``accounts.py``: accounts, scopes and models; ``submission_store.py``: uploads and submissions
- ``scores.py``: scores and diagnostics; ``standings.py``: the page that shows them
- ``faults.py``: faults on request, for tests
- ``server.py``: the HTTP server
"""
