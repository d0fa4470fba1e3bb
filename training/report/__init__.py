"""Describe a run in one HTML page: curves, classes, mistakes, filters, configuration and machine.

The page needs no network, no script and no other file: charts are SVG, pictures are PNG data URIs. It is built as a
tree of elements (``xml.etree``), so that every text is escaped; no template engine is needed.
"""
