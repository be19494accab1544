"""Kubernetes and Calico policies: read, judge, convert, select, evaluate, explain, generate, prove.

Rule: this package knows neither the store nor a cluster. `model` holds the records that everything else speaks;
`load` fills them from files. Nothing is imported here, so that `denylog --help` stays quick.
"""
