"""Files of the data volume: layout, manifests, locks, markers of runs, disk errors and reports.

Entry point: ``layout``, which has every path. Allowed imports: ``core``.
"""
