"""The tests: of the library (unit), of commands on files (stages), of the pipeline in git and DVC (graph); shared tools in support."""
