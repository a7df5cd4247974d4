"""Where photos come from: folders, globs, shards, manifests, object stores and standard input.

Every module holds sources of one kind; `indexer.sources.item` says what all of them are, and `indexer.sources.spelled`
which one a text on a command line means. No source keeps more in memory than the items it is asked for.
"""
