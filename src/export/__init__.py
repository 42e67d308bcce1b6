"""Exports the detector as MindIR and ONNX files, which run without this program."""
