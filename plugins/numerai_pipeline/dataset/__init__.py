"""Raw files of a round, their checks, and their conversion into the run's tables.

Entry point: :func:`numerai_pipeline.dataset.unpack.unpack`. Allowed imports: ``core``, ``storage``.
"""
