"""The subject: arrays in, arrays out. Nothing here knows of Prefect or of where files live."""
