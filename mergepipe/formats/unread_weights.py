"""Weights in formats that are not read: what is there, and how it becomes safetensors."""

from collections.abc import Collection, Mapping

from mergepipe.errors import MergeInputError
from mergepipe.names import quoted

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SAVE = "load the model with transformers and save it: model.save_pretrained(PATH)"


def no_weights(label: str, paths: Collection[str], left_out: Mapping[str, str]) -> MergeInputError:
    """The error for a model without tensors: names the weights that it has otherwise."""
    subject = quoted(label)
    if left_out:
        directory = next(iter(left_out)).rpartition("/")[0]
        return MergeInputError(
            f"{subject} has no weights of its own: {quoted(directory)} in it has",
            f"name that directory: {label}/{directory}",
        )
    for path in sorted(paths):
        name = path.rpartition("/")[2].lower()
        if name.endswith(".gguf"):
            return MergeInputError(
                f"{subject} has its weights in {quoted(path)}, a GGUF file, which is not merged",
                "merge the model that it was made from, and convert the result with llama.cpp's "
                "convert_hf_to_gguf.py; without that model, AutoModelForCausalLM.from_pretrained("
                f"PATH, gguf_file={path!r}) reads it and save_pretrained writes safetensors",
            )
        if name.endswith(_PICKLES) and name not in ("training_args.bin", "optimizer.pt"):
            return MergeInputError(
                f"{subject} has its weights in {quoted(path)}, a pickle, which is not read", _SAVE
            )
        if name.endswith((".h5", ".msgpack", ".onnx", ".tflite", ".npz")):
            return MergeInputError(
                f"{subject} has its weights in {quoted(path)}, which is not merged", _SAVE
            )
    return MergeInputError(
        f"{subject} has no tensors", "only safetensors files and pickles of tensors are merged"
    )
