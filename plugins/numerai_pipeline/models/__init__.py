"""Registry of the models in ``model_images/models.yaml``, names of their images, and checks of their predictions.

Entry point: :func:`numerai_pipeline.models.registry.load_registry`. Allowed imports: ``core``, ``storage``.
"""
