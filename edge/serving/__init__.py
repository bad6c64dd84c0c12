"""One request, from its head to its log record: the steps, and what each needs to know.

`exchange` alone knows their order; `quick` takes them at once where nothing has to be waited for.
"""
