"""What calls of transformers print and raise."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

# raised for a config, tokenizer or weights that cannot be used
LOAD_ERRORS = (
    *(OSError, EOFError, ValueError, ImportError, RuntimeError, SafetensorError, StrictDataclassError),
    *(ArithmeticError, AttributeError, LookupError, MemoryError, TypeError),  # of values that no model has
)


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Switch transformers' progress bars and messages off inside the block."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
