"""Reports: one page, without network or scripts, of a merge, a plan, a difference or a repository.

Who lives here: `values` says what a report knows, as plain data; `gathering` takes it from a
repository, `lineage` what came from what; `figures` makes the library's own charts of values and
computes nothing; `drawing` turns a chart into static SVG; `page` puts all of it into one page.

What comes in: an open repository, and what of it is asked for. What goes out: HTML, with the data
beside the pictures.

What never happens here: no weight is read, and nothing is fetched from a network.
"""
