"""The ground floor: what every package of the project stands on. No torch, no data preparation, no configuration.

One module per idea; import them by their names, there is no list here. Only the standard library and PyYAML are
needed to import any of it.
"""
