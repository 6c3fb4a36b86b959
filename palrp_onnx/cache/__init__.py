"""What was found about a model before: facts of its file, and compiled graphs.

The folder (``folder``) keeps bytes under keys. ``models`` and ``engines`` say what these are, and
what they depend on; ``keys`` names what everything depends on: versions and the machine.
"""
