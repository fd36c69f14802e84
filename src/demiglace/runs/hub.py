"""Upload a finished run's model to the Hugging Face hub."""

from pathlib import Path

from demiglace.console import is_main_process, say
from demiglace.errors import RunError

# of a run directory that is a model directory: its records, which hold local paths
_NOT_UPLOADED = ["run.json", "manifest.json", "log.jsonl", ".lock", "*.part", "inputs/**", "checkpoints/**"]


def push_to_hub(folder: Path, repository: str | None) -> None:
    """Upload a model directory: weights or ONNX files, config, tokenizer and card; nothing without a repository.

    A repository that does not exist is created as a private one. Equal files are not sent again. The main process of a
    `torchrun` uploads. Raises `RunError` if that fails; the run is then complete all the same.
    """
    if repository is None or not is_main_process():
        return
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        name = api.create_repo(repository, private=True, exist_ok=True).repo_id
        api.upload_folder(
            repo_id=name, folder_path=folder, ignore_patterns=_NOT_UPLOADED, commit_message="Upload by demiglace"
        )
    except Exception as error:  # also those of the HTTP client, which is another one in each version of the library
        raise RunError(
            f"{folder} is complete, but was not uploaded to {repository}: {_reason(error)} Log in with `hf auth login` "
            "or set HF_TOKEN, check the name, and repeat the command: it uploads without training again."
        ) from None  # what it was raised from may hold the request, with its token
    say(f"{folder}: uploaded to {api.endpoint}/{name}")


def _reason(error: Exception) -> str:
    """Return the message of an error on one line, without a token."""
    from huggingface_hub import get_token

    text, token = " ".join(str(error).split())[:300], get_token()
    return (text.replace(token, "…") if token else text).rstrip(".") + "."
