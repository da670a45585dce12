"""Model containers on a Docker engine or a swarm: start, reattach, follow, collect, remove.

Entry points: :class:`numerai_pipeline.containers.runner.ContainerRunner` and
:class:`numerai_pipeline.containers.model_task.ModelTask`. Allowed imports: ``core``, ``storage``, ``dataset``,
``models``, ``leaderboard``; never Airflow.
"""
