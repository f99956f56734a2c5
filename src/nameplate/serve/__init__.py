"""The HTTP service: an API and a web page over one or more bundles.

Each bundle has a queue with a hard cap and supervised worker processes. Requests pass through `middleware.py` to a
route, which hands photos to an `Engine`; the engine sends them to a worker and settles the answers.

app.py            the ASGI application, the page's files, and the server that runs until SIGTERM
settings.py       everything that an operator may choose, with every default
service.py        what the routes share: all engines, the budget of bytes, metrics, keys, corrections
served.py         the served bundles by name, and their exchange
aliases.py        names that stand for several bundles by weight, and the file that keeps them
budget.py         the bytes of request bodies in memory, each client's share of them, and how slowly they may arrive
copies.py         the copies of bundles that workers read
engine.py         one bundle: its queue, its workers, and what happens when they die
ipc.py            the messages between service and workers, and a worker process as the service sees it
worker.py         a worker process: it decodes, embeds in small batches, and classifies
turns.py          a queue in which clients take turns
middleware.py     the order of all guards before the routes, and security headers
access.py         host and origin checks, API keys, rate limits
keys.py           API keys, stored as hashes in a file
rates.py          rates of requests, and the moving windows that count against them
requests.py       request bodies, read under limits
errors.py         every refusal, in the form of RFC 9457
schema.py         answers as structs, and their OpenAPI description
tensors.py        requests and answers of the Open Inference Protocol
log_writer.py     the thread that writes log lines
observability.py  log lines and Prometheus metrics
routes/           the endpoints
feedback/         users' corrections in a database, and the data set made of them
"""
