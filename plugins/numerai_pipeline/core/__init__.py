"""Errors, settings, run parameters and the calendar of rounds and eras.

Entry points: ``errors``, ``settings`` and ``parameters``. Imports no other package of the pipeline.
"""
