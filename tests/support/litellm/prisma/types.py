class DatasourceOverride(dict[str, str]):
    pass
