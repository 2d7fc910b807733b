"""A local web application that reads, searches, probes and steers dictionaries.

    guard                                who may ask, and what the browser is told
    sphere, slices                       geometry of exemplars, for the pictures
    columns, cards ─► views              what is prepared of a dictionary, kept beside it
    views ─► queries, pages, relations   what is answered of regions
    models ─► live                       text and edits through the model
    application ─► serving               the routes, and the server
    single_file                          the same pages in one file

FastAPI and uvicorn are needed by `application` and `serving` alone: the extra "explore".
"""
