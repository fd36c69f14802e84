"""The formats of `demiglace export`, one row each.

Names alone, so that `--help` imports no library; `export.base.exporter_for` imports the class.
"""

# name for --to -> its `export.base.Exporter`, as MODULE:CLASS
EXPORTERS: dict[str, str] = {
    "onnx": "demiglace.export.onnx:OnnxExporter",
    "gguf": "demiglace.export.gguf:GgufExporter",
    "openvino": "demiglace.export.openvino:OpenVinoExporter",
    "executorch": "demiglace.export.executorch:ExecuTorchExporter",
    "safetensors": "demiglace.export.safetensors:SafetensorsExporter",
}

# those of them that have another exporter for language models: name for --to -> MODULE:CLASS
LANGUAGE_MODEL_EXPORTERS: dict[str, str] = {"onnx": "demiglace.export.onnx_decoder:OnnxDecoderExporter"}
