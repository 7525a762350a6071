"""Suites: their settings, data files, items and imports.

`suite` loads a suite, `items` its data file, and `configured_suites` keeps the loaded ones. The
other modules read other tools' files: data sets (`source_formats`, `dataset_import`,
`human_labels`, `hosted`), promptfoo's configuration (`promptfoo…`), and logged requests
(`logs`, `otel_spans`, `litellm_logs`). `suite_import` writes the result. Scoring is in
`evals.scorers`.
"""
