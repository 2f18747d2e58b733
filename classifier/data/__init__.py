"""Images and labels on disk: IDX files and Parquet tables."""
