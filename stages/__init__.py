"""One script a stage of dvc.yaml: `python -m stages.NAME --help`."""
