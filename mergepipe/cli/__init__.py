"""The `mp` command: the only place that touches the terminal, environment and clock (docs/cli.md).

Who lives here: `main` and `commands/` (one file each or a tight family together); `command` and
`session` (what all of them share), `failures` (errors and exit codes); `*_text` and `*_options`
(what people read and type); `progress`, `completion`, `trace`.

What comes in: arguments. What goes out: text or one JSON document, and an exit code.

What never happens here: nothing is decided about models; modules load nothing slow before a command
runs.
"""
