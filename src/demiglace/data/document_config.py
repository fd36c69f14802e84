"""How files become documents."""

from dataclasses import dataclass
from typing import Literal

from demiglace.config.options import option

Unit = Literal["document", "line", "paragraph"]


@dataclass(frozen=True)
class ReadConfig:
    """How files become documents."""

    text_key: str = option("key or column of JSON lines and Parquet that holds the text", "text")
    unit: Unit = option("what a document of a .txt file is: the file, each line, or what blank lines part", "document")
    max_document_mb: float = option("longer documents are left out, and counted; megabytes", 5.0, above=0)
