"""Reports: one page, without network or scripts, of a merge, a plan, a difference or a repository.

`values` says what a report knows, as plain data; `gathering` takes it from a repository. `figures`
makes the library's own charts of values and computes nothing; `drawing` turns a chart into static
SVG; `page` puts all of it into `page.html`, with the data beside the pictures.
"""
