"""align: preference alignment of vision-language models, as staged scripts over one set of contracts."""

__version__ = "0.1.0"
