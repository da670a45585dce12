"""Client of Numerai's API: rounds, datasets, downloads, accounts and submissions.

Entry point: :class:`~numerai_pipeline.numerai_api.client.ApiClient`, the connection that ``tournament.Tournament``,
``datasets.Datasets`` and ``account.Account`` use. The simulated tournament answers the same protocol.

Allowed imports: ``core``, ``storage``, ``dataset``, ``models``; never Airflow.
"""
