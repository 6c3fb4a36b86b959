"""The command line: parse, call the library, write.

This folder is installed as ``palrp_onnx.cli``. It imports its own modules relatively, so that type
checking and import contracts, which see the folder as ``cli``, read the same code.
"""
