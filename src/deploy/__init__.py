"""Files that run without this program: the detector as MindIR and ONNX."""
