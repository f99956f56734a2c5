"""The HTTP service: an API and a page over bundles, each behind a queue with a hard cap and supervised workers.

settings.py    what an operator may choose, with every default
problems.py    every refusal, as RFC 9457 has it
budget.py      the cap on photos and bytes that may wait
wire.py        what the service and its workers tell each other
worker.py      a process that decodes, embeds and classifies
batches.py     inside a worker: small batches, with a bound on waiting
engine.py      one bundle: its queue and its workers, watched over; answer.py what it knows of a photo
engines.py     all bundles that are served, and how one is exchanged
body.py        a request's photos, read under limits
tensors.py     the inference protocol's requests
tensor_answer.py  its answers
keys.py        API keys, as hashes in a file
access.py      who asks, and whether they may
rates.py       how often
hosts.py       under which name, and from which page
headers.py     what every answer tells browsers not to do
schema.py      answers as structs, and what OpenAPI says of them
logs.py        a line a request, through the standard library
metrics.py     what Prometheus reads
observer.py    what happens in the engines, told to both
protect.py     all of these before the routes, in their order
service.py     what the routes share
feedback/      users' corrections in a database, and the data set that they make
routes/        one module an endpoint
page.py        the web page, whose files are in page/
app.py         puts them together
server.py      runs them until told to stop
"""
