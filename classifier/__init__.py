"""The subject: arrays in, arrays out. Knows no Prefect and no artifact."""
