"""The page, the engine that answers in a browser without a server, and their export as a static site.

page/      the page, plain ES modules; `serve/app.py` serves it, and an exported site has the same files
engine/    what takes the service's place in an exported site: the pipeline in JavaScript, in a Web Worker
node/      what runs that engine in Node.js, where a site is compared with its bundle before it is written
"""
