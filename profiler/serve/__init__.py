"""A run's pages given by a server on this machine: every card on demand, a text box, search, notes.

`server.serve` opens the run and listens; `app` answers requests and refuses strangers; `live` makes the pages, by the
code that makes a site; `notes` is the file of notes beside the run.
"""
