"""What a run and a model's container agree on.

A container is started with parameters in its environment (`parameters`), reads two tables (`tables`), says what it is
doing (`progress`), leaves predictions and a report behind (`predictions`, `reports`, `outputs`) and ends with an exit
code that tells the run what to do next (`exits`). An operation is a module with a function ``run(task)``; `task` is
what it is handed, and ``python -m numerai_contract`` (`__main__`) is what starts it.

Nothing is imported here: the process that watches over the operation must stay small (see `supervisor`).
"""
