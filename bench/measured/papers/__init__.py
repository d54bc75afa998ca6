"""Tables and figures of arXiv 2602.24044 and 2508.08343 made again from published runs, the twin beside each measured figure."""
