"""Fault injection: check what xpnet promises under damaged files, full disks, kills and misuse, many times.

An injector is a module here with a function ``run(count, seed)``: a generator of at most ``count`` trials, the same
for the same seed. Each trial yields None if the promise held, or else one line that says what broke. The first
line of the module's docstring is its description. Modules without ``run`` are helpers.
"""
