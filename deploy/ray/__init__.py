"""A batch beyond one machine, on Ray Data: `python -m deploy.ray SOURCE OUT`.

plan.py lists the source once and cuts it into shards; shards.py scores one shard with the pipeline and engine
of `resnet-serve batch`; __main__.py hands the shards to a Ray cluster.
"""
