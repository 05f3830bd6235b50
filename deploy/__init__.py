"""How the service is run: manifests, dashboards, and the Ray Data pipeline for batches beyond one machine."""
