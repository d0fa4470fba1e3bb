"""Tables and progress bars, by rich on a terminal; plain text elsewhere."""
