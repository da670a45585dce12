"""The interface between a pipeline run and a model's container.

A container starts with parameters in its environment (`parameters`), reads two tables (`tables`), logs its progress
(`progress`), writes predictions and a report (`predictions`, `reports`, `outputs`) and ends with an exit code that
determines how the run proceeds (`exits`). An operation is a module ``<operation>_operation.py`` with a function
``run(task)`` (`operations`). It receives a `task`. The entry point is ``python -m numerai_contract`` (`__main__`).

This file imports nothing: the process that supervises the operation must stay small (see `supervisor`).
"""
