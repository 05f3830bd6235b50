"""Other serving frameworks doing the same job, each as its own documentation recommends: one module a peer.

Each module is a server: `python -m bench.peers.<name> VERSION_DIR PORT` with the peers' own Python (see
requirements.txt). They share the job (job.py): the same weights in torch, the same JPEGs, the top five back.
"""
