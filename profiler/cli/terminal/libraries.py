"""Other libraries' progress bars, advice and warnings, kept off the screen."""

import logging
import os


def quiet() -> None:
    """Silence the progress bars and the log of transformers, datasets, the hub's client and TransformerLens."""
    import transformers

    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("transformer_lens", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "huggingface_hub" else logging.ERROR)
