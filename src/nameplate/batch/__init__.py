"""Batch jobs: predictions for many photos written to tables, which can be interrupted and resumed.

predict.py     a whole job: one row per photo
job.py         the job on disk: its specification, its listing, and which shards are done; journals of small jobs
shards.py      shards made in this process
on_ray.py      shards made by workers of a Ray cluster
cluster.py     Ray itself: started on this machine or joined
uris.py        what a user gives → URIs of photos
archives.py    photos inside zips and tars
tables.py      files of rows: Parquet, CSV and JSON Lines
adverts.py     claims of adverts, verified one row per advert
submission.py  the competition's submission
"""
