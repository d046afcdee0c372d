"""The ground floor: what every package of the project stands on. No torch, no data preparation, no configuration.

One module per idea; import them by their names, there is no list here. The standard library is enough for most of it;
``yaml_files`` needs PyYAML and ``options`` pydantic.
"""
