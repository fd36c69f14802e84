"""`demiglace compress`: from a model and rows to the best student within a budget."""

from demiglace.compress.run import compress_model
from demiglace.config.command_options import CompressConfig
from demiglace.config.options import command
from demiglace.given_objects import saved_objects
from demiglace.methods.registry import method_value
from demiglace.runs.result import Result


@command(CompressConfig, objects=saved_objects, method=method_value)
def compress(config: CompressConfig) -> Result:
    """Compress a model to a budget of size, latency and quality, and write what is to be shipped.

    Returns the chosen file's measurements and the directory: model/ (Hugging Face), the exported files, README.md (the
    card), report.html, manifest.json, and runs/ with an ordinary run for each step. An interrupted call resumes when it
    is repeated. Raises `RunError` if nothing fits, with the impossible limit and the nearest possible value.
    """
    return compress_model(config)
