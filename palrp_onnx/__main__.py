"""``python -m palrp_onnx``: the commands."""

from importlib import import_module

if __name__ == "__main__":
    # Not an import statement: the library does not know the commands.
    import_module("palrp_onnx.cli.main").main()
